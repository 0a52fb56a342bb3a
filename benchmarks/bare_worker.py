"""A worker that computes nothing: it answers every task with as many bytes as a real one.

Part of the baseline of benchmarks/sharing.py, one process per worker.
"""

from __future__ import annotations

import argparse
import signal

import paho.mqtt.client as paho

from benchmarks.bare import body, connect, number

TASK = "bare/v1/task"
DONE = "bare/v1/done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--done-bytes", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client = connect(arguments.node, arguments.port, [TASK])

    def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
        client.publish(f"{DONE}/{arguments.node}", body(number(message), arguments.done_bytes))

    client.on_message = on_message
    client.loop_forever()


if __name__ == "__main__":
    main()
