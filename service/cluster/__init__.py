"""More than one worker: a worker tells that it lives, a gateway finds it, streams to it and goes on elsewhere."""
