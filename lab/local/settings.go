package local

import "time"

// Settings are what serverless.yml and infra/ say of the functions, their event source mappings and the database. A test compares them.
type Settings struct {
	Consumer ConsumerSettings
	CarStats CarStatsSettings
	Postgres map[string]string // settings of the server by name
}

// ConsumerSettings are those of the consumer and of its mapping on the stream.
type ConsumerSettings struct {
	Timeout               time.Duration // of the function
	CallTimeout           time.Duration // of a call to the bus; 0 is the default of package cdcconsumer
	BatchSize             int
	ParallelizationFactor int
	BisectOnError         bool
	// MaxRecordAge is an hour below the age at which the stream forgets a record. There is no limit by count.
	MaxRecordAge time.Duration
	OnFailure    bool // a queue is told what was discarded
}

// CarStatsSettings are those of the subscriber carstats, of its queue, and of its mapping on the queue.
type CarStatsSettings struct {
	Timeout           time.Duration // of the function
	VisibilityTimeout time.Duration // a message that failed comes again after it; whole seconds
	MaxReceives       int           // a message that was received so often goes to the failure queue
	BatchSize         int
	Concurrency       int // batches that are under way at once
	// Schedule is how often the function is called without messages, where it counts in order. It then asks for what is missing.
	Schedule time.Duration
	// AskAfter is how long an event is held before the versions before it are asked for. 0 is the default of package inbox.
	AskAfter time.Duration
	// Source and DetailTypes select the events of the rule that fills the queue.
	Source      string
	DetailTypes []string
}

// Deployed are the settings on AWS, in stage dev.
func Deployed() Settings {
	return Settings{
		Consumer: ConsumerSettings{
			Timeout: 60 * time.Second, BatchSize: 100, ParallelizationFactor: 2,
			BisectOnError: true, MaxRecordAge: 167 * time.Hour, OnFailure: true,
		},
		CarStats: CarStatsSettings{
			Timeout: 30 * time.Second, VisibilityTimeout: 180 * time.Second, MaxReceives: 20, BatchSize: 10, Concurrency: 5,
			Schedule: time.Minute,
			Source:   "outbox.car", DetailTypes: []string{"CarCreated", "CarUpdated", "CarDeleted"},
		},
		Postgres: map[string]string{"max_slot_wal_keep_size": "8192MB", "wal_sender_timeout": "30000ms"},
	}
}

// ForPeople are the settings of `make dev` and `make demo`, where somebody watches.
func ForPeople() Settings {
	s := Deployed()
	// A batch that the bus refuses comes again after it, and with it the line in the log that says why.
	s.Consumer.Timeout = 30 * time.Second
	// Nobody wants to wait for minutes until a message that failed comes again.
	s.CarStats.Timeout, s.CarStats.VisibilityTimeout = 4*time.Second, 4*time.Second
	// The same holds for a version that does not come.
	s.CarStats.Schedule, s.CarStats.AskAfter = time.Second, 5*time.Second
	// A laptop's disk is smaller than a database's.
	s.Postgres["max_slot_wal_keep_size"] = "4GB"
	// Each event is a commit. That many at once share the disk's time, and keep up with 500 events a second.
	s.CarStats.Concurrency = 20
	return s
}

// ForChaos are the settings of `make chaos`, where everything fails all the time.
func ForChaos() Settings {
	s := Deployed()
	// What a function that runs into its timeout leaves behind is to be seen often.
	s.Consumer.Timeout = 6 * time.Second
	// A message comes again while its round still runs.
	s.CarStats.Timeout, s.CarStats.VisibilityTimeout = 4*time.Second, 4*time.Second
	// What is lost behind the bus is asked for in the round, and not before a message that failed has come again.
	s.CarStats.Schedule, s.CarStats.AskAfter = time.Second, 5*time.Second
	// While the database is killed again and again a low count would park what is good.
	s.CarStats.MaxReceives = 1000
	s.Postgres = map[string]string{
		// A slot is lost on purpose by ALTER SYSTEM, which a setting of the command line, as these are, would overrule.
		// "max_slot_wal_keep_size": absent
		"wal_sender_timeout":        "3s", // a frozen relay is seen as one
		"max_prepared_transactions": "10", // writers prepare some
	}
	return s
}
