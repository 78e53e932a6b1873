"""What cleanups are sent to.

    targets.py honest PORT FILE     notes each call in FILE: when, the path, the status that was answered, the attempt; some are answered
                                    only when they come again.  Paths that begin with /hang/ are not answered for long
    targets.py rude PORT HONEST     on forty addresses, at the same port: hangs, trickles, redirects, resets, ...
"""
import asyncio
import os
import sys
import time
import zlib

ADDRESSES = [f"127.0.1.{n}" for n in range(1, 41)]
MANNERS = ("hang", "trickle", "slow", "redirect", "missing", "close", "reset", "garbage", "endless", "headers", "busy", "fine")
ANSWERS = {200: b"OK", 500: b"Not yet"}


async def request(reader):
    """The path, and the number of the attempt."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
    await reader.readexactly(int(fields.get(b"content-length", 0)))
    return head.split(b" ", 2)[1].decode(), int(fields[b"garbagetruck-attempt"])


class Honest:
    def __init__(self, path):
        self.notes = open(path, "a", buffering=1)
        self.seen = set()

    async def serve(self, reader, writer):
        try:
            while True:
                path, attempt = await request(reader)
                at = time.monotonic()
                if path.startswith("/hang/"):
                    await asyncio.sleep(3600)
                # by the object, so that it is the same for both sidecars
                dice, first = zlib.crc32(path.encode()) % 20, path not in self.seen
                self.seen.add(path)
                if first and dice == 0:         # comes again
                    self.notes.write(f"{at} {path} 0 {attempt}\n")
                    return
                status = 500 if first and dice == 1 else 200
                if first and dice == 2:
                    await asyncio.sleep(1)
                self.notes.write(f"{at} {path} {status} {attempt}\n")
                writer.write(b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\n\r\n" % (status, ANSWERS[status]))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Rude:
    def __init__(self, honest):
        self.honest = honest

    async def serve(self, reader, writer):
        try:
            path, _ = await request(reader)
            await getattr(self, path.split("/")[1])(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def say(writer, text, pause=0.0):
        writer.write(text)
        await writer.drain()
        await asyncio.sleep(pause)

    async def hang(self, writer):
        await asyncio.sleep(3600)

    async def trickle(self, writer):
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + bytes(100000):
            await self.say(writer, bytes((byte,)), 0.2)

    async def slow(self, writer):
        await asyncio.sleep(2)
        await self.fine(writer)

    async def redirect(self, writer):
        await self.say(writer, f"HTTP/1.1 302 Found\r\nlocation: {self.honest}/redirected/none-x\r\ncontent-length: 0\r\n\r\n".encode())

    async def missing(self, writer):
        await self.say(writer, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    async def close(self, writer):
        pass

    async def reset(self, writer):
        writer.transport.abort()

    async def garbage(self, writer):
        await self.say(writer, os.urandom(2000))

    async def endless(self, writer):
        await self.say(writer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await self.say(writer, b"4000\r\n" + bytes(0x4000) + b"\r\n", 0.01)

    async def headers(self, writer):
        await self.say(writer, b"HTTP/1.1 200 OK\r\n")
        while True:
            await self.say(writer, b"x-more: " + b"x" * 8000 + b"\r\n", 0.01)

    async def busy(self, writer):
        await self.say(writer, b"HTTP/1.1 503 Busy\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n")

    async def fine(self, writer):
        await self.say(writer, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def main():
    port = int(sys.argv[2])
    if sys.argv[1] == "honest":
        servers = [await asyncio.start_server(Honest(sys.argv[3]).serve, "127.0.0.1", port, backlog=1024)]
    else:
        servers = [await asyncio.start_server(Rude(sys.argv[3]).serve, address, port, backlog=1024) for address in ADDRESSES]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
