"""The stream's mapping and the bus's journal: moto calls the function for each record inside of PutRecords, and keeps no order of a bus."""
import datetime
import functools
import json
import os
import threading
import time

import jsonpath_ng.ext
from moto.awslambda.utils import get_backend
from moto.events.models import EventsBackend
from moto.kinesis.models import Stream

# --- 11. a record is accepted at once, and comes to the function in a batch of its shard -----------------------------------
waiting = {}  # function and shard to the records that the function has not had
accepting = threading.Lock()


def put_record(self, partition_key, explicit_hash_key, data):
    shard = self.get_shard_for_key(partition_key, explicit_hash_key)
    with accepting:
        sequence = shard.put_record(partition_key, data, explicit_hash_key)
        for mapping in self.lambda_event_source_mappings.values():
            record = {
                "kinesis": {"kinesisSchemaVersion": "1.0", "partitionKey": partition_key, "sequenceNumber": sequence, "data": data,
                            "approximateArrivalTimestamp": round(time.time(), 3)},
                "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": f"{shard.shard_id}:{sequence}", "eventName": "aws:kinesis:record",
                "awsRegion": self.region, "eventSourceARN": self.arn,
            }
            records = waiting.setdefault((mapping.function_arn, shard.shard_id), [])
            records.append(record)
            if len(records) == 1:  # a poller ends when nothing waits
                backend = get_backend(self.account_id, self.region)
                threading.Thread(target=poll, args=(backend, mapping, records), daemon=True).start()
    return sequence, shard.shard_id


def poll(backend, mapping, records):
    while True:
        with accepting:
            batch = records[:mapping.batch_size]
        try:
            function = backend.get_function(mapping.function_arn)
            answer, failed, _ = function._invoke_lambda(json.dumps({"Records": batch}))
            failures = {f["itemIdentifier"] for f in json.loads(answer).get("batchItemFailures", [])} if not failed else {batch[0]["kinesis"]["sequenceNumber"]}
            done = next((n for n, r in enumerate(batch) if r["kinesis"]["sequenceNumber"] in failures), len(batch))
        except Exception:  # the stack was removed. Anything else shows as a lost event.
            done = len(batch)
        with accepting:
            del records[:done]
            if not records:
                return
        if done < len(batch):
            time.sleep(0.2)


Stream.put_record = put_record

# moto parses the same eight paths for each target of each event, for half a second of CPU.
jsonpath_ng.ext.parse = functools.cache(jsonpath_ng.ext.parse)

# --- 12. the journal of the bus, as package awslocal writes it -------------------------------------------------------------
put_events = EventsBackend.put_events
journal = threading.Lock()


def put_events_journalled(self, events):
    answers = put_events(self, events)
    now = datetime.datetime.now(datetime.UTC)
    lines = [json.dumps({
        "eventId": answer["EventId"], "eventBus": entry["EventBusName"], "acceptedAt": rfc3339(now), "source": entry["Source"], "detailType": entry["DetailType"],
        "time": rfc3339(datetime.datetime.fromtimestamp(entry["Time"], datetime.UTC)), "resources": entry.get("Resources", []),
        "traceHeader": entry.get("TraceHeader", ""), "detail": json.loads(entry["Detail"]),
    }) + "\n" for entry, answer in zip(events, answers) if "EventId" in answer]
    with journal, open(os.path.join(os.environ["EMULATOR_BUS"], "bus.jsonl"), "a") as file:
        file.write("".join(lines))
    return answers


def rfc3339(t):
    return t.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if "EMULATOR_BUS" in os.environ:
    EventsBackend.put_events = put_events_journalled
