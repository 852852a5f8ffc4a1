"""An own TCP proxy that harms what goes through it: one process, many links, each told what to do by JSON lines.

    proxy.py [SEED]        (standard input: orders, standard output: one answer each)

A link has a client's side (who connected) and a server's side. What can be set of it:
`hold`: "up" (nothing goes to the server), "down", "both" or "": what is held goes on when it is let go, as TCP sends again after a partition;
`delay`, `spread`: seconds by which each piece is late (in order within a connection, out of order between two); `refuse`: no connection is
taken, those that are there are cut; `twice`: the share of whole HTTP requests that are sent again, later, on a connection of their own;
`reset`: cut the connections that are there, once."""
import asyncio
import json
import os
import random
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PIECE, LATER_SECONDS, ANSWER_SECONDS, BODY_MOST = 65536, 2.0, 5.0, 8 << 20
REPEATED = re.compile(rb"^POST [^ ]*/(reports|run|cancel|peer[^ ]*) ")
CALM = {"hold": "", "delay": 0.0, "spread": 0.0, "refuse": False, "twice": 0.0}


class Requests:
    """Cuts what a client says into whole requests; what cannot be cut goes through as it comes."""

    def __init__(self):
        self.buffer, self.raw = b"", False

    def feed(self, data):
        if self.raw:
            return [data]
        self.buffer += data
        found = []
        while not self.raw:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                break
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.buffer[:head])
            end = head + 4 + (int(length[1]) if length else 0)
            if re.search(rb"(?i)\r\ntransfer-encoding:", self.buffer[:head]) or end > BODY_MOST:
                self.raw = True
            elif len(self.buffer) >= end:
                found.append(self.buffer[:end])
                self.buffer = self.buffer[end:]
            else:
                break
        if self.raw or (len(self.buffer) > BODY_MOST):
            self.raw = True
            found.append(self.buffer)
            self.buffer = b""
        return found


class Link:
    """One listening port and the server behind it."""

    def __init__(self, name, to, http, dice):
        self.name, self.to, self.http, self.random = name, to, http, dice
        self.state, self.changed = dict(CALM), asyncio.Event()
        self.listener, self.port, self.writers = None, 0, set()
        self.counts = {"connections": 0, "bytes": 0, "again": 0, "cut": 0}

    async def open(self):
        if not self.listener:
            self.listener = await asyncio.start_server(self.client, "127.0.0.1", self.port, reuse_address=True)
            self.port = self.listener.sockets[0].getsockname()[1]

    def cut(self):
        for writer in list(self.writers):
            self.counts["cut"] += 1
            writer.transport.abort()

    async def set(self, what):
        if what.pop("reset", False):
            self.cut()
        self.state.update(what)
        self.changed.set()
        self.changed = asyncio.Event()
        if self.state["refuse"] and self.listener:
            self.listener.close()
            self.listener = None
            self.cut()
        elif not self.state["refuse"]:
            await self.open()

    async def gate(self, way):
        """Wait as long as nothing may pass this way, and the delay."""
        while self.state["hold"] in (way, "both"):
            await self.changed.wait()
        if self.state["delay"] or self.state["spread"]:
            await asyncio.sleep(self.state["delay"] + self.random.uniform(0, self.state["spread"]))

    async def client(self, reader, writer):
        self.counts["connections"] += 1
        self.writers.add(writer)
        other = None
        try:
            await self.gate("up")
            back, other = await asyncio.open_connection("127.0.0.1", self.to)
            self.writers.add(other)
            ways = [asyncio.create_task(self.pump(reader, other, "up", Requests() if self.http else None)),
                    asyncio.create_task(self.pump(back, writer, "down", None))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        except OSError:
            pass
        finally:
            for w in (writer, other):
                if w:
                    self.writers.discard(w)
                    w.close()

    async def pump(self, reader, writer, way, requests):
        try:
            while data := await reader.read(PIECE):
                for piece in requests.feed(data) if requests else (data,):
                    await self.gate(way)
                    writer.write(piece)
                    self.counts["bytes"] += len(piece)
                    if requests and self.state["twice"] and REPEATED.match(piece) and self.random.random() < self.state["twice"]:
                        asyncio.get_running_loop().create_task(self.again(piece))
                await writer.drain()
            await self.gate(way)
        except OSError:
            pass

    async def again(self, request):
        """The same request once more, a little later."""
        await asyncio.sleep(self.random.uniform(0, LATER_SECONDS))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.to)
            writer.write(request)
            self.counts["again"] += 1
            await asyncio.wait_for(reader.read(PIECE), ANSWER_SECONDS)
            writer.close()
        except (OSError, asyncio.TimeoutError):
            pass


class Server:
    """All links, and the orders."""

    def __init__(self, seed):
        self.links, self.random = {}, random.Random(seed)

    async def order(self, o):
        if "open" in o:
            link = self.links[o["open"]] = Link(o["open"], o["to"], o.get("http", False), self.random)
            await link.open()
            return {"port": link.port}
        if "link" in o:
            await self.links[o["link"]].set(o["set"])
            return {}
        return {"counts": {name: link.counts for name, link in self.links.items()}}

    async def main(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            print(json.dumps(await self.order(json.loads(line))), flush=True)


class Proxy:
    """The process, from the side of a test."""

    def __init__(self, folder, dies_with_me, seed=0):
        with open(os.path.join(folder, "proxy.log"), "ab") as log:
            self.process = subprocess.Popen(dies_with_me([sys.executable, os.path.abspath(__file__), str(seed)]), stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        self.ports = {}

    def order(self, **o):
        self.process.stdin.write(json.dumps(o) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the proxy has ended: see proxy.log")
        return json.loads(answer)

    def open(self, name, to, http=False):
        """A new link to a local port; returns its own."""
        self.ports[name] = self.order(open=name, to=to, http=http)["port"]
        return self.ports[name]

    def set(self, name, **what):
        self.order(link=name, set=what)

    def calm(self, name, reset=False):
        self.set(name, **CALM, reset=reset)

    def counts(self):
        return self.order()["counts"]

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":
    asyncio.run(Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0).main())
