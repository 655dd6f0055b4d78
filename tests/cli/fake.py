# SPDX-License-Identifier: Apache-2.0
"""A daemon that says what a test wants: HTTP on a unix socket."""
import http.server
import json
import os
import socketserver
import threading
import time


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class Fake:
    """answers: {"GET /v1/status": answer}; the query is part of the key where it matters. An answer is a value (200, JSON), a
    (status, value) pair, or a function of the request that does it all. requests: what was asked, in order."""

    def __init__(self, path):
        self.path = path
        self.answers = {}
        self.requests = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self):
                return "unix"

            def log_message(self, *args):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.body = self.rfile.read(length)
                fake.requests.append((self.command, self.path, self.body, dict(self.headers)))
                answer = fake.answers.get(f"{self.command} {self.path}", (404, {"error": f"no such path {self.path}"}))
                if callable(answer):
                    answer(self)
                    return
                status, value = answer if isinstance(answer, tuple) else (200, answer)
                self.say(status, value if isinstance(value, bytes) else json.dumps(value).encode())

            def say(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

        self.server = Server(path, Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        os.unlink(self.path)


def stream(*lines, end=True, gap=0.0):
    """An answer in pieces: each line a chunk of its own, split where it hurts."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in lines:
            data = (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            for piece in (data[: len(data) // 2], data[len(data) // 2:]):
                if piece:
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    handler.wfile.flush()
            time.sleep(gap)
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            time.sleep(30)

    return answer
