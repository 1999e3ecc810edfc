# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A server of weight files on this machine, with the faults of real ones."""

import functools
import http.server
import threading
import time
from contextlib import contextmanager


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, as the first word of a file's name says.

    ``cut`` always breaks off in the middle, ``flaky`` does at the first request and
    goes on at the second, ``busy`` answers 503 at first, ``slow`` takes a second.
    """

    def log_message(self, *args):
        """Say nothing."""

    def do_GET(self):
        """Answer a request."""
        self.server.requested.append(self.path)
        word = self.path.lstrip('/').split('-')[0].split('.')[0]
        again = self.server.requested.count(self.path) > 1
        if word == 'slow':
            time.sleep(1)
        if word == 'busy' and not again:
            self.send_error(503)
        elif word in ('cut', 'flaky'):
            self._send(broken=word == 'cut' or not again)
        else:
            super().do_GET()

    def _send(self, broken):
        with open(self.translate_path(self.path), 'rb') as file:
            content = file.read()
        first = int(self.headers.get('Range', 'bytes=0-')[len('bytes=') : -1])
        self.send_response(206 if first else 200)
        if first:
            whole = len(content)
            self.send_header('Content-Range', f'bytes {first}-{whole - 1}/{whole}')
        content = content[first:]
        self.server.ranges.append(first)
        self.send_header('ETag', '"1"')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if broken else content)


@contextmanager
def weight_server(folder):
    """Serve a folder; ``url``, ``folder``, ``requested`` and ``ranges`` tell of it."""
    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.folder, server.requested, server.ranges = folder, [], []
    server.url = f'http://127.0.0.1:{server.server_address[1]}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
