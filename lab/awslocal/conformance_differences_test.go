package awslocal_test

// "reference" in the table is the API reference as the SDK's documentation of the operation repeats
// it. "model" is botocore 1.43.11, kinesis/2013-12-02/service-2.json. "kinesalite's suite" is its
// test folder, which also runs against the service.
const (
	byModel = "a limit or pattern of the model is refused with ValidationException: amazon-kinesis-producer#680, kinesalite's suite"
	either  = "Must either specify ... or ... and no StartingSequenceNumber: Alpakka#160, kinesalite's suite"
)

var differences = []difference{
	// kinesalite lacks what the service got since 2020.
	{
		kinesalite.name, []string{"IteratorByARN", "PutRecordTakesARN", "SummaryTakesARN"},
		"ValidationException: 1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null",
		"StreamARN is enough: reference",
	},
	{kinesalite.name, []string{"SummaryGivesStreamMode", "SummaryGivesRecordLimit"}, "none", "StreamModeDetails, MaxRecordSizeInKiB: model"},
	{kinesalite.name, []string{"PutsAnswerWithEncryption"}, " ", "NONE is a value of EncryptionType: reference; that it is said and not left out is unconfirmed"},
	{kinesalite.name, []string{"ListShardsFiltersAfterShard"}, "0 1 2 3", "AFTER_SHARD_ID starts behind ShardId: reference of ShardFilter"},
	{
		kinesalite.name, []string{"PutRecordsTakesTenMiB", "PutRecordsRefusesMoreThanTenMiB"}, "no API answer (413)",
		"10 MiB for the entire request, keys included: reference; the code and text for more are known of the former limit of 5 MB: amazon-kinesis-streams-for-fluent-bit#21",
	},
	// kinesalite does not do this.
	{kinesalite.name, []string{"ListShardsPages"}, "0 1 2 3 4", "MaxResults, NextToken: reference"},
	{kinesalite.name, []string{"ListShardsOfForgedToken"}, "no API answer (0)", "it crashes; InvalidArgumentException is the operation's only fitting error: model; its text is unconfirmed"},
	{
		kinesalite.name, []string{"MillisBehindLatestIsPositiveBeforeTip", "MillisBehindLatestIsPositiveWithinBatch"}, "caught up",
		"zero says that there are no new records to process: reference",
	},
	{kinesalite.name, []string{"IteratorAtTimestampAfterAll", "EmptyShardAtTimestamp"}, noAnswer, "the iterator is for the next later record: reference"},
	{kinesalite.name, []string{"OverShardLimitFailsRecordsAlone"}, "ok", "1 MB a second, the other records are processed: reference; text: kinesalite#87"},
	{
		kinesalite.name, []string{"PutRecordsRefusesDataAndKeyOverMiB"}, "ok",
		"the size limit is for key and data: reference; that it is refused like data alone is unconfirmed",
	},
	// kinesalite checks patterns without anchoring both alternatives.
	{kinesalite.name, []string{"HashKey.01", "HashKey.0x1"}, "0", byModel},
	{
		kinesalite.name, []string{"HashKey.-1"},
		"InvalidArgumentException: Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was -1", byModel,
	},
	{
		kinesalite.name, []string{"IteratorAtSequenceNumberWithZero"},
		"InvalidArgumentException: Invalid StartingSequenceNumber. It encodes shardId-000000000012, while it was used in a call to a shard with shardId-000000000000", byModel,
	},
	// kinesalite, where sources disagree or are silent.
	{
		kinesalite.name, []string{"GetRecordsRefusesLimit10001"},
		"ValidationException: 1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000",
		"more than 10,000 throws InvalidArgumentException: reference; kinesalite's suite and the model's maximum speak for ValidationException",
	},
	{
		kinesalite.name, []string{"GetShardIteratorOfUnknownStream"},
		"ResourceNotFoundException: Shard shardId-000000000000 in stream absent under account 000000000000 does not exist",
		"ResourceNotFoundException: model; kinesalite's suite speaks for its text, ours is that of the other operations",
	},
	{kinesalite.name, []string{"IteratorTimestampAndSequenceNumber"}, "ok", "StartingSequenceNumber is for the two types that are named after it: reference; that it is refused is unconfirmed"},
	{kinesalite.name, []string{"IteratorAfterSequenceNumberNotGivenYet"}, "ok", "a number returned by earlier calls: reference; that another is refused is unconfirmed. Taken, it would skip records"},

	// kinesis-local refuses with another code, or does not refuse.
	{
		kinesisLocal.name, []string{
			"CreateStreamWithBadName", "CreateStreamWithLongName", "DescribeStreamSummaryOfBadStreamName",
			"GetShardIteratorOfBadStreamName", "PutRecordOfBadStreamName", "PutRecordsOfBadStreamName",
			"GetRecordsRefusesLimit0", "GetRecordsRefusesLimitNegative", "HashKey.-1", "HashKey.01",
			"HashKey.1000000000000000000000000000000000000000", "IteratorAtEmptySequenceNumber", "IteratorAtSequenceNumberOfNoDigits",
			"IteratorAtSequenceNumberWithZero", "IteratorOfShardWithBadName", "IteratorOfShardWithLongName", "PutRecordsNamesEveryBadRecord",
			"PutRecordsNamesTenViolations", "PutRecordsRefusesEmptyKey", "PutRecordsRefusesKeyOf257Characters",
		}, "InvalidArgumentException", byModel,
	},
	{kinesisLocal.name, []string{"ListShardsOfBadStreamName"}, "ResourceNotFoundException", byModel},
	{kinesisLocal.name, []string{"IteratorOfUnknownType"}, "SerializationException", byModel},
	{kinesisLocal.name, []string{"CreateStreamWithoutShards"}, "LimitExceededException", byModel},
	{
		kinesisLocal.name, []string{"GetRecordsOfIteratorEmpty", "GetRecordsOfIteratorLonger512", "HashKey.", "HashKey.0x1", "ListShardsRefusesMaxResults0", "RefusesSequenceNumberForOrderingOfNoDigits"},
		"UnknownError", byModel,
	},
	{kinesisLocal.name, []string{"GetRecordsOfIteratorForged", "GetRecordsOfIteratorNoBase64"}, "UnknownError", "Invalid ShardIterator.: kinesalite's suite"},
	{kinesisLocal.name, []string{"PutRecordsRefusesDataOverMiB"}, "ok\n1 InvalidArgumentException", byModel + "; a single record's error is one of two others: reference"},
	{
		kinesisLocal.name, []string{"IteratorAfterSequenceNumberNotGivenYet"}, "ResourceNotFoundException",
		"a number returned by earlier calls: reference; how another is refused is unconfirmed",
	},
	// kinesis-local does not check this.
	{kinesisLocal.name, []string{"PutRecordsRefusesNoRecords", "PutRecordsRefuses501Records"}, "ok", byModel},
	{kinesisLocal.name, []string{"ListShardsRefusesMaxResults10001"}, "0", byModel},
	{
		kinesisLocal.name, []string{"PutRecordsRefusesDataAndKeyOverMiB"}, "ok",
		"the size limit is for key and data: reference; that it is refused like data alone is unconfirmed",
	},
	{kinesisLocal.name, []string{"IteratorLatestAndSequenceNumber", "IteratorTrimHorizonAndSequenceNumber"}, "ok", either},
	{kinesisLocal.name, []string{"IteratorTimestampAndSequenceNumber"}, "ok", "StartingSequenceNumber is for the two types that are named after it: reference; that it is refused is unconfirmed"},
	{
		kinesisLocal.name, []string{"IteratorAtNonsense", "IteratorAtSequenceNumberOfAWS", "IteratorAtSequenceNumberOfOtherShard", "IteratorAtSequenceNumberOfOtherStream"}, "ok",
		"refused, in an empty shard too: boto3#1478, amazon-kinesis-client#391, amazon-kinesis-connectors#8, kinesalite's suite",
	},
	{kinesisLocal.name, []string{"IteratorAtFutureTimestamp"}, "ok", "an empty shard makes no difference: unconfirmed; the text is kinesalite's"},
	{kinesisLocal.name, []string{"IteratorOfShardWithShortID", "IteratorOfShardWithoutName"}, "ResourceNotFoundException", "the number is what counts: kinesalite's suite"},
	// kinesis-local answers with other facts.
	{
		kinesisLocal.name, []string{"HashRangesOf2Shards"},
		"shardId-000000000000 0-170141183460469231731687303715884105726\nshardId-000000000001 170141183460469231731687303715884105727-340282366920938463463374607431768211455",
		"2^128 hashes divided by the shards: an answer of the service in erlcloud's src/erlcloud_kinesis.erl, kinesalite's suite",
	},
	{kinesisLocal.name, []string{"HashRangesOf16Shards"}, hashRanges(16, 1), "as for 2 shards"},
	{kinesisLocal.name, []string{"SummaryGivesRecordLimit"}, "none", "MaxRecordSizeInKiB: model"},
	{
		kinesisLocal.name, []string{"RecordsCarryArrivalAndNoEncryption"}, "now, NONE",
		"left out where nothing is encrypted: LocalStack's record of 2022-08-25, tests/aws/services/kinesis/test_kinesis.snapshot.json",
	},
	{kinesisLocal.name, []string{"MillisBehindLatestIsPositiveWithinBatch"}, "caught up", "zero says that there are no new records to process: reference"},
	{kinesisLocal.name, []string{"RecordsGoAfterRetention"}, "1; 1 2", "TRIM_HORIZON is the oldest untrimmed record, records are accessible for 24 hours: reference"},
}
