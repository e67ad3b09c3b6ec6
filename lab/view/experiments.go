package view

// experiment is one experiment of the tour, with the words of docs/failure-lab.md. A test compares
// them.
type experiment struct {
	N      int      `json:"n"`
	Title  string   `json:"title"`
	Intro  string   `json:"intro"`
	Steps  []string `json:"steps"`
	Expect string   `json:"expect"`

	switches []string // that it needs
	run      func(*run) (outcome string)
}

var experiments = []experiment{
	{
		N: 1, Title: "Kill the relay while cars are created",
		Intro: "The relay keeps no state of its own. Its position is in PostgreSQL, in the slot. So the relay may die in the middle of " +
			"anything, and stay away.",
		Steps: []string{
			"Cars are created all the time, about twenty a second.",
			"SIGKILL ends the relay. Nobody starts it again.",
			"Commits go on. Their events wait in the WAL, and none of them reaches the bus.",
			"The relay is started. It reads on from the slot's position. The stream has everything before that position.",
			"Every event arrives, and every car is counted once.",
		},
		Expect: "As many events on the bus as were committed, none lost, none out of order. Records that Kinesis had taken and the " +
			"relay had not confirmed come twice, and are suppressed.",
		switches: []string{"kill-relay"},
		run:      killTheRelay,
	},
	{
		N: 2, Title: "Stop PostgreSQL",
		Intro: "Car and event are one commit in one database. While the database is away, no car can be promised, so no promised car " +
			"can be lost.",
		Steps: []string{
			"Cars are created one after the other, and each answer is noted.",
			"PostgreSQL is shut down.",
			"Requests are answered with an error. Those cars do not exist, and neither do their events.",
			"PostgreSQL is started on the same data, and requests are answered with 201 again. The relay connects again by itself.",
			"Every car that was promised is there, on the bus, and counted.",
		},
		Expect:   "No request that was answered with 201 is without its car, and no car is without its event.",
		switches: []string{"stop-postgres"},
		run:      stopPostgres,
	},
	{
		N: 3, Title: "EventBridge down, then failing",
		Intro: "A call of PutEvents can fail as a whole, or for single entries while the others are accepted. A program that then " +
			"sends only the failed entries again lets a car's later events overtake its earlier ones.",
		Steps: []string{
			"EventBridge answers every call with 503. Five cars are created, and each is changed nine times.",
			"The consumer answers that its batch failed, and gets it again. Nothing reaches the bus, nothing is parked, nothing is " +
				"skipped.",
			"EventBridge takes calls again, but three of ten entries fail.",
			"The consumer sends those again, each before the next event of its car, until all have arrived.",
			"The fault is over. Each car's ten events are on the bus in the order of their versions.",
		},
		Expect:   "Fifty events, none lost, none out of order, none parked. A bus in trouble is no reason to give an event up.",
		switches: []string{"bus-down", "fail-entries"},
		run:      busInTrouble,
	},
	{
		N: 4, Title: "Everything twice",
		Intro: "Delivery is at least once, on AWS as here. EventBridge and SQS may repeat what they deliver, and the consumer repeats " +
			"a call that got no answer. The subscriber sees to it that each event counts once.",
		Steps: []string{
			"The subscriber now gets each event twice, and three of ten answers of EventBridge are lost on their way.",
			"Forty cars are created.",
			"Every event arrives twice or more often at the subscriber.",
			"The inbox knows the event id, and counts each car once.",
		},
		Expect:   "Forty cars, forty counted, and at least forty duplicates suppressed.",
		switches: []string{"duplicate"},
		run:      everythingTwice,
	},
	{
		N: 5, Title: "Poison, and nowhere to put it",
		Intro: "A record that can never be published must not hold up the records behind it, so it is parked in the failure queue. If " +
			"it cannot be parked, it must not be passed over either.",
		Steps: []string{
			"A car is created, and the failure queue is down.",
			"A record that can never be an event is put on the stream, on that car's shard.",
			"The consumer cannot park it. The car is changed five times, and these events wait behind the poison.",
			"The failure queue is up again. The poison is parked, with its payload and the reason.",
			"The events that waited behind it go on.",
		},
		Expect: "One record parked, the five changes on the bus in their order, nothing lost. The record stays in the failure queue for " +
			"an operator. To see it, run bin/outboxctl redrive list.",
		switches: []string{"queue-down", "poison"},
		run:      poisonAndNoQueue,
	},
}
