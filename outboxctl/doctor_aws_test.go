package outboxctl

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/awslocal"
)

func TestDoctorOfTheServices(t *testing.T) {
	t.Parallel()
	mapping := func(edit func(*awslocal.Mapping)) func(*awslocal.Config) {
		return func(c *awslocal.Config) { edit(&c.Mappings[0]) }
	}
	nothing := func(*awslocal.Config) {}
	for name, tc := range map[string]struct {
		edit     func(*awslocal.Config)
		setup    func(*doctor)
		state    state
		check    string
		contains string
	}{
		"NothingIsWrong":           {nothing, nil, stateOK, "mapping", "Enabled, batches of 100, gives up after 167h0m0s"},
		"TheStreamIsMissing":       {nothing, func(d *doctor) { d.Stream = "typo" }, stateFail, "stream", "ResourceNotFoundException"},
		"TheRowsGoTooSoon":         {nothing, func(d *doctor) { d.RetentionDays = 8 }, stateFail, "stream", "rows stay only 8 days"},
		"HowLongRowsStayIsUnknown": {nothing, func(d *doctor) { d.RetentionDays = 0 }, stateWarn, "stream", "whether rows stay longer is not known"},
		"TheRowsStayLongEnough":    {nothing, func(d *doctor) { d.RetentionDays = 9 }, stateOK, "stream", "keeps 168 h"},
		"TheStreamForgetsSoon":     {func(c *awslocal.Config) { c.Retention, c.Mappings = 24*time.Hour, nil }, func(d *doctor) { d.Consumer = "" }, stateWarn, "stream", "keeps 24 h"},
		"TheMappingIsMissing":      {func(c *awslocal.Config) { c.Mappings = nil }, nil, stateFail, "mapping", "consumer has 0 mappings"},
		"TheMappingIsOfAnother":    {mapping(func(m *awslocal.Mapping) { m.Stream = "other" }), nil, stateFail, "mapping", "has 0 mappings to outbox"},
		"TheMappingIsOff":          {mapping(func(m *awslocal.Mapping) { m.State = "Disabled" }), nil, stateFail, "mapping", "is Disabled"},
		"TheMappingIsChanging":     {mapping(func(m *awslocal.Mapping) { m.State = "Updating" }), nil, stateWarn, "mapping", "is Updating"},
		"TheAnswerIsNotRead":       {mapping(func(m *awslocal.Mapping) { m.ReportBatchItemFailures = false }), nil, stateFail, "mapping", "they are lost"},
		"RetriesEnd":               {mapping(func(m *awslocal.Mapping) { m.MaximumRetryAttempts = 5 }), nil, stateFail, "mapping", "after 5 retries"},
		"LambdaOutlivesTheStream":  {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = 604_800 }), nil, stateFail, "mapping", "forgets a record"},
		"LambdaNeverGivesUp":       {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = -1 }), nil, stateFail, "mapping", "forgets a record"},
		"LambdaGivesUpSoon":        {mapping(func(m *awslocal.Mapping) { m.MaximumRecordAge = 3600 }), nil, stateWarn, "mapping", "gives a record up after 1h0m0s"},
		"NobodyIsTold":             {mapping(func(m *awslocal.Mapping) { m.OnFailureQueue = "" }), nil, stateFail, "mapping", "tells nobody"},
		"AFilter":                  {mapping(func(m *awslocal.Mapping) { m.Filters = []string{"{}"} }), nil, stateFail, "mapping", "has a filter"},
		"NoBisecting":              {mapping(func(m *awslocal.Mapping) { m.BisectOnError = false }), nil, stateWarn, "mapping", "does not halve"},
		"NoFunctionIsNamed":        {nothing, func(d *doctor) { d.Consumer = "" }, stateSkip, "mapping", "CONSUMER_FUNCTION is not set"},
		"TheFailureQueueIsMissing": {nothing, func(d *doctor) { d.FailureQueue += "x" }, stateFail, "failure queue", "does not exist"},
		"TheDiscardQueueIsMissing": {nothing, func(d *doctor) { d.DiscardQueue += "x" }, stateFail, "discard queue", "does not exist"},
		"NoDiscardQueueIsNamed":    {nothing, func(d *doctor) { d.DiscardQueue = "" }, stateSkip, "discard queue", "DISCARD_QUEUE_URL is not set"},
		"TheBusIsMissing":          {nothing, func(d *doctor) { d.Bus = "typo" }, stateFail, "bus", "Event bus typo does not exist"},
		"OurClockIsWrong":          {nothing, func(d *doctor) { d.now = func() time.Time { return time.Now().Add(-time.Hour) } }, stateFail, "AWS clock", "off ours"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wholeMapping, tc.edit)
			r.setup.Consumer = "consumer"
			d := r.doctor()
			if tc.setup != nil {
				tc.setup(&d)
			}
			checks := d.services(t.Context())
			if name == "TheStreamIsMissing" { // without it there is no mapping to look for
				require.Equal(t, stateSkip, named(checks, "mapping")[0].State)
			}
			requireOnly(t, checks, tc.state, tc.check, tc.contains)
		})
	}

	t.Run("SomethingWaitsInAQueue", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, wholeMapping)
		r.send(t, r.setup.FailureQueue, "{}")
		requireOnly(t, r.doctor().services(t.Context()), stateFail, "failure queue", "messages: 1: events that were parked are not on the bus")
	})

	t.Run("ASlowAnswerIsNoWrongClock", func(t *testing.T) {
		t.Parallel()
		d, looked := newRig(t, wholeMapping).doctor(), time.Now()
		d.now = func() time.Time {
			defer func() { looked = looked.Add(time.Hour) }()
			return looked
		}
		_, checks := d.checkStream(t.Context())
		requireOnly(t, checks, stateOK, "AWS clock", "within ")
	})

	t.Run("AWSsClockIsOurs", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, wholeMapping)
		wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
			r.aws.ServeHTTP(w, q)
		}))
		defer wrong.Close()
		r.setup.AWS = awslocal.SDKConfig(wrong.URL)
		requireOnly(t, r.doctor().services(t.Context()), stateWarn, "AWS clock", "off ours")
	})
}
