"""Quix Streams, exactly once: the ids of a header in its RocksDB state, with a changelog."""

import sys

from quixstreams import Application

settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
interval_s = int(settings["interval.ms"]) / 1000

application = Application(
    broker_address=settings["bootstrap"],
    consumer_group=settings["group"],
    state_dir=settings["state"],
    processing_guarantee="exactly-once",
    auto_offset_reset="earliest",
    commit_interval=interval_s,
    # Else a commit waits for the next record, or for a second.
    consumer_poll_timeout=interval_s,
    producer_extra_config={"compression.type": settings["compression"]},
    loglevel="WARNING",
)


def is_new(_value, _key, timestamp, headers, state):
    """State is kept by key; an id's records all have the same key."""
    message_id = dict(headers)["message-id"].decode("latin-1")
    if state.exists(message_id):
        return False
    state.set(message_id, timestamp)
    return True


def topic(name):
    return application.topic(name, key_serializer="bytes", key_deserializer="bytes",
                             value_serializer="bytes", value_deserializer="bytes")


records = application.dataframe(topic(settings["input"]))
records = records.filter(is_new, metadata=True, stateful=True)
records.to_topic(topic(settings["output"]))
application.run()
