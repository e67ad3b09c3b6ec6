package rdsdb

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"DB_HOST": "db.example.com", "DB_PORT": "6432", "DB_NAME": "outboxdb", "DB_USER": "dbadmin", "DB_SECRET_ARN": testARN, "DB_SSL": "true",
	}
	config, err := ConfigFromEnv(func(name string) string { return good[name] })
	require.NoError(t, err)
	require.Equal(t, Config{Host: "db.example.com", Port: 6432, Name: "outboxdb", User: "dbadmin", SecretARN: testARN, SSL: true}, config)

	for name, test := range map[string]struct {
		change map[string]string
		want   string // empty: accepted
	}{
		"PortUnset":      {map[string]string{"DB_PORT": ""}, ""},
		"PortNotANumber": {map[string]string{"DB_PORT": "postgres"}, `DB_PORT is "postgres": set it to the port of the instance, such as 5432`},
		"PortTooLarge":   {map[string]string{"DB_PORT": "70000"}, `DB_PORT is "70000": set it to the port of the instance, such as 5432`},
		"PortZero":       {map[string]string{"DB_PORT": "0"}, `DB_PORT is "0": set it to the port of the instance, such as 5432`},
		"SSLOff":         {map[string]string{"DB_SSL": "false"}, ""},
		"SSLUnset":       {map[string]string{"DB_SSL": ""}, `DB_SSL is "": set it to true (RDS) or false (a server on this machine)`},
		"SSLMisspelt":    {map[string]string{"DB_SSL": "True "}, `DB_SSL is "True ": set it to true (RDS) or false (a server on this machine)`},
		"BothAtOnce": {map[string]string{"DB_PORT": "x", "DB_SSL": "y"},
			"DB_PORT is \"x\": set it to the port of the instance, such as 5432\nDB_SSL is \"y\": set it to true (RDS) or false (a server on this machine)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(good)
			maps.Copy(env, test.change)
			config, err := ConfigFromEnv(func(name string) string { return env[name] })
			if test.want != "" {
				require.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			if name == "PortUnset" {
				require.EqualValues(t, 5432, config.Port)
			}
			require.Equal(t, env["DB_SSL"] == "true", config.SSL)
		})
	}
}

func TestIncompleteConfigIsRefused(t *testing.T) {
	t.Parallel()
	_, err := New(Config{}, nil)
	for _, field := range []string{"DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_SECRET_ARN", "ApplicationName"} {
		require.ErrorContains(t, err, field)
	}
}

func TestTLSIsAsked(t *testing.T) {
	t.Parallel()
	roots := x509.NewCertPool()
	config := Config{Host: "db.example.com", Port: 5432, Name: "n", User: "u", SecretARN: testARN, ApplicationName: "x"}

	plain, err := config.poolConfig(func(string) *x509.CertPool { panic("loaded without need") })
	require.NoError(t, err)
	require.Nil(t, plain.ConnConfig.TLSConfig)

	config.SSL = true
	verified, err := config.poolConfig(func(host string) *x509.CertPool {
		require.Equal(t, "db.example.com", host)
		return roots
	})
	require.NoError(t, err)
	tls := verified.ConnConfig.TLSConfig
	require.NotNil(t, tls)
	require.Equal(t, "db.example.com", tls.ServerName)
	require.Same(t, roots, tls.RootCAs)
	require.False(t, tls.InsecureSkipVerify)
	require.Empty(t, verified.ConnConfig.Fallbacks, "no second try without TLS")
}

func TestBundle(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for rest := []byte(caBundle); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			require.NotContains(t, string(rest), "BEGIN")
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		require.True(t, cert.IsCA)
		require.Contains(t, cert.Subject.CommonName, "Amazon RDS")
		require.True(t, cert.NotAfter.After(time.Now().AddDate(5, 0, 0)), cert.Subject)
		names[cert.Subject.CommonName] = true
	}
	for region := range strings.FieldsSeq(`af-south-1 ap-east-1 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1
		ap-southeast-2 ap-southeast-3 ap-southeast-4 ca-central-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1
		eu-west-2 eu-west-3 me-central-1 me-south-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2`) {
		for _, key := range []string{"RSA2048", "RSA4096", "ECC384"} {
			require.Contains(t, slices.Collect(maps.Keys(names)), "Amazon RDS "+region+" Root CA "+key+" G1")
		}
	}
}

func TestRootsOfTheHostsRegion(t *testing.T) {
	t.Parallel()
	pool := func(words ...string) *x509.CertPool { // those whose name has one of the words
		roots := x509.NewCertPool()
		for rest := []byte(caBundle); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return roots
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(cert.Subject.CommonName, " "+word+" ") }) {
				roots.AddCert(cert)
			}
		}
	}
	all := pool("RDS")
	for name, test := range map[string]struct {
		host string
		want *x509.CertPool
	}{
		"Instance":      {"orders.c0ffee000000.eu-west-1.rds.amazonaws.com", pool("eu-west-1")},
		"Cluster":       {"orders.cluster-ro-c0ffee000000.us-east-1.rds.amazonaws.com", pool("us-east-1")},
		"UnknownRegion": {"orders.c0ffee000000.mx-central-1.rds.amazonaws.com", all},
		"OtherName":     {"orders-eu-west-1.example.com", all},
		"NoName":        {"10.0.0.7", all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.True(t, amazonRoots(test.host).Equal(test.want))
		})
	}
	require.False(t, pool("eu-west-1").Equal(all))
}

// BenchmarkRoots is a part of every cold start.
func BenchmarkRoots(b *testing.B) {
	for name, host := range map[string]string{"Region": "orders.c0ffee000000.eu-west-1.rds.amazonaws.com", "All": "db.example.com"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				amazonRoots(host)
			}
		})
	}
}
