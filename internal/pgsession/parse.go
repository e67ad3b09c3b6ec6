package pgsession

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ParseConfig reads a connection string, a URL or key=value pairs, as pgx does. Its errors name what is wrong and never repeat a part of
// the string. pgx hides only what it takes for the password, and in a malformed string that is something else. In `password = x` or in a
// URL whose password has an unencoded @, the error would show the password.
//
// It refuses a URL with an @ in another place than before the host, although pgx takes it. A password with an unencoded @ would end
// there, and its rest would be the host that every error of connecting names.
func ParseConfig(connString string) (*pgx.ConnConfig, error) {
	_, afterScheme, isURL := strings.Cut(connString, "://")
	isURL = isURL && (strings.HasPrefix(connString, "postgres://") || strings.HasPrefix(connString, "postgresql://"))
	wrong := pairFault
	if isURL {
		wrong = urlFault
	}
	if isURL && straysAt(afterScheme) {
		wrong = func(string) string {
			return "an @ is in another place than before the host, so a character of the password must be percent-encoded"
		}
	} else if config, err := pgx.ParseConfig(connString); err == nil {
		return config, nil
	}
	return nil, fmt.Errorf("not a connection string (%s). It is not repeated, because it may hold a password. It looks like "+
		"postgres://user:password@host:5432/database, where @ : / ? # %% and spaces in the password are percent-encoded", wrong(connString))
}

// straysAt reports whether a URL without its scheme has an @ but the one that ends the password.
func straysAt(rest string) bool {
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	return strings.Count(rest, "@") > min(1, strings.Count(authority, "@"))
}

// ParsePoolConfig is ParseConfig for a pool, which also reads the settings pool_*.
func ParsePoolConfig(connString string) (*pgxpool.Config, error) {
	if _, err := ParseConfig(connString); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(connString)
	if err != nil { // it repeats the value, too
		return nil, errors.New("a connection string with a wrong pool_max_conns, or another setting pool_*")
	}
	return config, nil
}

// known are the names of settings, such as host or sslmode, that an error may repeat. Another word in the place of a name may be a part
// of the password.
var known = regexp.MustCompile(`^(host|hostaddr|port|user|password|passfile|dbname|database|sslmode|sslrootcert|sslcert|sslkey|sslpassword|` +
	`sslnegotiation|sslsni|connect_timeout|application_name|target_session_attrs|service|servicefile|options|krbsrvname|krbspn|` +
	`channel_binding|require_auth|min_protocol_version|max_protocol_version|default_query_exec_mode|statement_cache_capacity|` +
	`description_cache_capacity|pool_[a-z_]+|search_path|timezone|client_encoding)$`)

func urlFault(connString string) string {
	u, err := url.Parse(connString)
	if err != nil {
		var escape url.EscapeError
		text := err.Error()
		switch {
		case errors.As(err, &escape):
			return "a % is not followed by two hexadecimal digits"
		case strings.Contains(text, "userinfo"):
			return "the user name or the password has a character that must be percent-encoded"
		case strings.Contains(text, "port"):
			return "the port is not a number, or the password has a character that must be percent-encoded"
		}
		return "the URL is malformed"
	}
	query := u.Query()
	for name := range query {
		rest := *u
		values := u.Query()
		values.Del(name)
		rest.RawQuery = values.Encode()
		if _, err := pgx.ParseConfig(rest.String()); err == nil {
			return nameFault(name)
		}
	}
	return "host, port or one of the settings behind the ? is wrong"
}

func nameFault(name string) string {
	if known.MatchString(name) {
		return "the value of " + name + " is wrong"
	}
	return "it has a setting that is wrong"
}

// pairFault walks over key=value pairs as libpq does.
func pairFault(connString string) string {
	rest, last := connString, "the beginning"
	for {
		rest = strings.TrimLeft(rest, " \n\t\r")
		at := len(connString) - len(rest) + 1
		if rest == "" {
			return "the value of " + last + ", or of one before it, is wrong"
		}
		name, value, found := strings.Cut(rest, "=")
		if name = strings.TrimRight(name, " \n\t\r"); !found || !known.MatchString(name) {
			return fmt.Sprintf("no name of a setting with = at character %d, after %s", at, last)
		}
		last = name
		value = strings.TrimLeft(value, " \n\t\r")
		end := strings.IndexAny(value, " \n\t\r")
		if strings.HasPrefix(value, "'") {
			end = closing(value)
			if end < 0 {
				return "the quote of the value of " + name + " is not closed"
			}
		}
		if end < 0 {
			end = len(value)
		}
		rest = value[end:]
	}
}

// closing returns the place after the quote that closes the one at the beginning of s, or -1.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			return i + 1
		}
	}
	return -1
}
