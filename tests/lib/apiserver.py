# SPDX-License-Identifier: Apache-2.0
"""
A double of a Kubernetes API server: TLS, bearer tokens, lists by pages, chunked watches with bookmarks; and everything that can go wrong with one.

    with ApiServer() as server:
        server.listen(namespace)                # on 127.0.0.1 there, as many as are wanted
        server.put(pod("web", node="node-1", ips=["10.77.1.2"]))
        server.kubeconfig(path)
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

POLICY = "policy.networking.k8s.io"
PATHS = {
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/pods",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
    "AdminNetworkPolicy": f"/apis/{POLICY}/v1alpha1/adminnetworkpolicies",
    "BaselineAdminNetworkPolicy": f"/apis/{POLICY}/v1alpha1/baselineadminnetworkpolicies",
    "ClusterNetworkPolicy": f"/apis/{POLICY}/v1alpha2/clusternetworkpolicies",
    "ServiceCIDR": "/apis/networking.k8s.io/v1/servicecidrs",
}
BETA = {"ServiceCIDR": "/apis/networking.k8s.io/v1beta1/servicecidrs"}
KINDS = {path: kind for kind, path in PATHS.items()}
PORT = 16443
# What a real object carries besides, and nobody here wants.
NOISE = {"managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}] * 3}


class Kind:
    def __init__(self):
        self.objects = {}
        self.log = []  # (version, type, object)
        self.compacted = 0


class ApiServer:
    def __init__(self, absent=("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy", "ServiceCIDR"), page=500, beta=()):
        self.absent, self.page = set(absent), page
        self.beta = set(beta)  # kinds that are where they were in earlier versions
        self.lock = threading.Condition()
        self.kinds = {path: Kind() for path in KINDS}
        self.version = 1000
        self.tokens = {"first"}
        self.faults = {}  # name: how many times still
        self.requests = []  # (path, query, token)
        self.times = []  # (path, when it was asked for)
        self.patches = []  # (path, type, body)
        self.sockets, self.connections = {}, set()
        self.dir = tempfile.mkdtemp(prefix=f"hdt-{os.getpid()}-api")
        self.certificate, self.key = os.path.join(self.dir, "crt"), os.path.join(self.dir, "key")
        self.token_file = os.path.join(self.dir, "token")
        self.write_token("first")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            + ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.key, "-out", self.certificate],
            check=True,
            capture_output=True,
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, self.key)
        # its own certificate is that of a client too, for who has it
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(self.certificate)

    # --- whom it serves ---

    def write_token(self, token):
        with open(self.token_file + ".new", "w", encoding="ascii") as f:
            f.write(token)
        os.rename(self.token_file + ".new", self.token_file)

    def kubeconfig(self, name="kubeconfig", **user):
        path = os.path.join(self.dir, name)
        with open(self.certificate, "rb") as f:
            ca = base64.b64encode(f.read()).decode()
        cluster = {"server": f"https://127.0.0.1:{PORT}", "certificate-authority-data": ca}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "other", "context": {}}, {"name": "test", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user or {"tokenFile": "token"}}],
        }
        with open(path, "w", encoding="ascii") as f:
            json.dump(config, f)
        return path

    def listen(self, namespace):
        with namespace:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(64)
        self.sockets[namespace] = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self):
        namespaces = list(self.sockets)
        for listener in self.sockets.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.sockets = {}
        self.drop()
        return namespaces

    def drop(self):
        """All connections break, in the middle of whatever they do."""
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.lock.notify_all()

    # --- what it knows ---

    def put(self, *objects):
        with self.lock:
            for o in objects:
                kind = self.kinds[PATHS[o["kind"]]]
                key = (o["metadata"].get("namespace"), o["metadata"]["name"])
                self.version += 1
                o = {**o, "metadata": {**o["metadata"], **NOISE, "resourceVersion": str(self.version)}}
                kind.log.append((self.version, "MODIFIED" if key in kind.objects else "ADDED", o))
                kind.objects[key] = o
            self.lock.notify_all()
        return self.version

    def delete(self, kind_name, name, namespace=None):
        with self.lock:
            kind = self.kinds[PATHS[kind_name]]
            gone = kind.objects.pop((namespace, name))
            self.version += 1
            gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
            kind.log.append((self.version, "DELETED", gone))
            self.lock.notify_all()

    def forget(self):
        """Watches from versions before now are 410, and those that are open end with it."""
        with self.lock:
            self.version += 1
            for kind in self.kinds.values():
                kind.log.clear()
                kind.compacted = self.version
            self.lock.notify_all()

    def say(self, kind_name, line):
        """A line of a watch as it is given, whatever it says."""
        with self.lock:
            self.version += 1
            self.kinds[PATHS[kind_name]].log.append((self.version, None, line))
            self.lock.notify_all()

    def bookmark(self):
        with self.lock:
            self.version += 1
            for path, kind in self.kinds.items():
                o = {"kind": KINDS[path], "metadata": {"resourceVersion": str(self.version)}}
                kind.log.append((self.version, "BOOKMARK", o))
            self.lock.notify_all()

    def fail(self, name, times=1):
        """truncate (an event, then the end), cut (a chunk that is not whole, then the end), stall (a list), drip (a list, a byte at a time), 500, 403 and 409
        (a patch), 410 (a page), garbage, halves (each event in small chunks), twice (each event)"""
        self.faults[name] = times

    def fails(self, name):
        with self.lock:
            left = self.faults.get(name, 0)
            self.faults[name] = max(0, left - 1)
            return left > 0

    def asked(self, path=None, **query):
        with self.lock:
            return [r for r in self.requests if path in (None, r[0]) and all(r[1].get(k) == v for k, v in query.items())]

    # --- serving ---

    def _accept(self, listener):
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = None
        with self.lock:
            self.connections.add(raw)
        try:
            connection = self.context.wrap_socket(raw, server_side=True)
            with self.lock:
                self.connections.discard(raw)
                self.connections.add(connection)
            file = connection.makefile("rb")
            while self._request(connection, file):
                pass
        except (OSError, ValueError, ssl.SSLError):
            pass
        finally:
            with self.lock:
                self.connections.discard(raw)
                self.connections.discard(connection)
            (connection or raw).close()

    def _request(self, connection, file):
        first = file.readline().decode().split()
        if not first:
            return False
        headers = {}
        while (line := file.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        url = urllib.parse.urlsplit(first[1])
        query = dict(urllib.parse.parse_qsl(url.query))
        token = headers.get("authorization", "").removeprefix("Bearer ")
        with self.lock:
            self.requests.append((url.path, query, token))
            self.times.append((url.path, time.monotonic()))
        if token not in self.tokens and not connection.getpeercert():
            return self._refuse(connection, 401, "Unauthorized")
        if first[0] == "PATCH":
            return self._patch(connection, url.path, headers, file.read(int(headers["content-length"])))
        if url.path.startswith(PATHS["Node"] + "/"):
            return self._get(connection, url.path.removeprefix(PATHS["Node"] + "/"))
        for kind in self.beta:
            path = {PATHS[kind]: None, BETA[kind]: PATHS[kind]}.get(url.path, url.path)
            url = url._replace(path=path or "")
        if url.path not in KINDS or KINDS[url.path] in self.absent:
            return self._refuse(connection, 404, "the server could not find the requested resource")
        if self.fails("500"):
            return self._refuse(connection, 500, "etcd is not there")
        if query.get("watch"):
            return self._watch(connection, self.kinds[url.path], int(query["resourceVersion"]))
        return self._list(connection, url.path, query)

    def _answer(self, connection, status, body):
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return True

    def _refuse(self, connection, status, message):
        return self._answer(connection, status, json.dumps({"kind": "Status", "code": status, "message": message}).encode())

    def _list(self, connection, path, query):
        kind = self.kinds[path]
        with self.lock:
            version, at = self.version, 0
            if query.get("continue"):
                version, at = (int(n) for n in query["continue"].split("+/="))
                if self.faults.get("410"):
                    self.faults["410"] -= 1
                    return self._refuse(connection, 410, "The provided continue parameter is too old")
            page = min(int(query.get("limit", 1 << 30)), self.page)
            objects = list(kind.objects.values())
            items = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in objects[at : at + page]]
            metadata = {"resourceVersion": str(version)}
            if at + page < len(objects):
                metadata["continue"] = f"{version}+/={at + page}"
        body = json.dumps({"kind": KINDS[path] + "List", "apiVersion": "v1", "metadata": metadata, "items": items}).encode()
        if self.fails("garbage"):
            body = body[: len(body) // 2] + b"]}"
        if self.fails("drip"):
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            for byte in body:
                connection.sendall(bytes([byte]))
                time.sleep(0.5)
            return False
        if self.fails("stall"):
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
            time.sleep(30)
            return False
        return self._answer(connection, 200, body)

    def _get(self, connection, node):
        with self.lock:
            found = self.kinds[PATHS["Node"]].objects.get((None, node))
        if found is None:
            return self._refuse(connection, 404, f'nodes "{node}" not found')
        return self._answer(connection, 200, json.dumps(found).encode())

    def _patch(self, connection, path, headers, body):
        """Of a Node: a JSON patch of the kinds that are in use, and conditions, which a strategic merge patch has by their type."""
        name, _, status = path.removeprefix(PATHS["Node"] + "/").partition("/")
        self.patches.append((path, headers["content-type"], patch := json.loads(body)))
        if self.fails("403"):
            return self._refuse(connection, 403, f'nodes "{name}" is forbidden')
        if self.fails("409"):
            return self._refuse(connection, 409, "the object has been modified")
        with self.lock:
            node = self.kinds[PATHS["Node"]].objects.get((None, name))
        if node is None:
            return self._refuse(connection, 404, f'nodes "{name}" not found')
        node = json.loads(json.dumps(node))
        if status:
            assert headers["content-type"] == "application/strategic-merge-patch+json"
            for new in patch["status"]["conditions"]:
                conditions = node["status"].setdefault("conditions", [])
                old = next((c for c in conditions if c["type"] == new["type"]), None)
                if old is None:
                    conditions.append(new)
                else:
                    old.update(new)
        else:
            assert headers["content-type"] == "application/json-patch+json"
            for step in patch:
                part, _, last = step["path"].lstrip("/").rpartition("/")
                if step["op"] == "test" and node[part].get(last) != step["value"] or step["op"] == "replace" and last not in node[part]:
                    return self._refuse(connection, 422, "the server rejected our request due to an error in our request")
                if step["op"] in ("add", "replace"):
                    node[part][last] = step["value"]
        self.put(node)
        return self._answer(connection, 200, json.dumps(node).encode())

    def _watch(self, connection, kind, version):
        def chunk(data):
            connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        with self.lock:
            if version < kind.compacted:
                return self._refuse(connection, 410, "too old resource version")
            # the log is in the order of versions
            at = next((i for i, e in enumerate(kind.log) if e[0] > version), len(kind.log))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        seen = kind.compacted
        while True:
            with self.lock:
                while at >= len(kind.log) and kind.compacted == seen:
                    self.lock.wait(60)
                    if connection not in self.connections:
                        return False
                    if connection.fileno() < 0:
                        return False
                if kind.compacted != seen:
                    events = [(0, "ERROR", {"kind": "Status", "code": 410, "message": "too old", "metadata": {}})]
                else:
                    events = kind.log[at:]
                    at = len(kind.log)
            lines = [e[2].encode() if e[1] is None else json.dumps({"type": e[1], "object": e[2]}).encode() + b"\n" for e in events]
            data = b"".join(line + line for line in lines) if self.fails("twice") else b"".join(lines)
            if self.fails("cut"):
                connection.sendall(f"{2 * len(data):x}\r\n".encode() + data)
                return False
            if self.fails("truncate"):
                chunk(data[: len(data) // 2])
                return False
            if self.faults.get("halves"):
                for i in range(0, len(data), 7):
                    chunk(data[i : i + 7])
            else:
                chunk(data)
            if events[0][1] == "ERROR":
                chunk(b"")
                return True

    def close(self):
        self.down()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# --- objects ---


def node(name, address, *cidrs, labels=None, taints=(), conditions=(), **annotations):
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}, "annotations": annotations}
    internal = [address] if isinstance(address, str) else address
    addresses = [{"type": "Hostname", "address": name}, *({"type": "InternalIP", "address": a} for a in internal)]
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    if taints:
        spec["taints"] = list(taints)
    status = {"addresses": addresses, "conditions": list(conditions)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def namespace(name, **labels):
    labels = {"kubernetes.io/metadata.name": name, **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}, "spec": {"finalizers": ["kubernetes"]}}


def pod(name, on=None, ips=(), ns="default", labels=None, ports=(), phase="Running", uid=None, annotations=None, **spec):
    containers = [{"name": "main", "image": "none", "ports": [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in ports]}]
    if on:
        spec["nodeName"] = on
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}
    if ips:
        status.update(podIP=ips[0], podIPs=[{"ip": ip} for ip in ips])
    metadata = {"name": name, "namespace": ns, "uid": uid or f"uid-of-{ns}-{name}", "labels": labels or {}, "annotations": {"a/b": "c", **(annotations or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}, "status": status}


def network_policy(name, ns="default", **spec):
    metadata = {"name": name, "namespace": ns}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}}


def service_cidr(name, *cidrs):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}, "spec": {"cidrs": list(cidrs)},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
