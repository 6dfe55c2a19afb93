"""The durable home of sessions: the snapshot codec, the Redis store, and an embedded Redis."""
