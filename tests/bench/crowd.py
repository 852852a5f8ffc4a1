"""A crowd of clients that are of no use: `python3 -m tests.bench.crowd PORT IDLE SLOW`. Idle ones connect and say nothing; slow ones send a header
byte by byte, one a second, and come again when they are cut. Prints `in` when all are connected; at the end of its input how many are
still there and how often slow ones were cut."""
import resource
import selectors
import socket
import sys
import time

PER_ADDRESS = 500
BEGIN = b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: "


def dial(port, number):
    """Addresses 127.1.0.1 and on, so that no cap of one address is met."""
    s = socket.socket()
    s.bind((f"127.1.{number // PER_ADDRESS // 250}.{1 + number // PER_ADDRESS % 250}", 0))
    s.settimeout(20)
    s.connect(("127.0.0.1", port))
    s.setblocking(False)
    return s


class Slow:
    """One that drips."""

    def __init__(self, port, number, selector):
        self.port, self.number, self.selector = port, number, selector
        self.cut = 0
        self.come()

    def come(self):
        self.socket = dial(self.port, self.number)
        self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.say(BEGIN)

    def say(self, data):
        try:
            self.socket.send(data)
        except OSError:
            self.again()

    def again(self):
        self.cut += 1
        self.selector.unregister(self.socket)
        self.socket.close()
        self.come()


def main():
    port, idle_count, slow_count = map(int, sys.argv[1:4])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    selector = selectors.DefaultSelector()
    idle = [dial(port, i) for i in range(idle_count)]
    slow = [Slow(port, idle_count + i, selector) for i in range(slow_count)]
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    print("in", flush=True)
    turn, steps = 0, 100  # a hundredth of the slow ones each hundredth of a second
    while True:
        until = time.monotonic() + 1 / steps
        for key, _ in selector.select(1 / steps):
            if key.data is None:
                print(sum(alive(s) for s in idle), sum(s.cut for s in slow), flush=True)
                return
            key.data.again()  # whatever it says: the end
        for one in slow[turn::steps]:
            one.say(b"x")
        turn = (turn + 1) % steps
        time.sleep(max(0.0, until - time.monotonic()))


def alive(s):
    try:
        return s.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
