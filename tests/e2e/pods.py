"""What a node does with a pod, without a container engine: its containers' own commands, environment and probes, in the files of
the image (runtimes/rootfs), read-only, as nobody, with their volumes, and in a network of their own where ports are as they say.

Needs to be root, as a kubelet is.
"""

import base64
import ctypes
import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from forward import pump
from servers import PATIENCE, ROOT, Answer, Process, eventually

CLONE_NEWNET = 0x40000000
NOBODY = 65532
# Of runtimes/Dockerfile.
ENTRYPOINT = ["/usr/bin/stoker", "serve"]


class Node:
    """Where pods run; the image is made once."""

    def __init__(self, folder, cluster):
        self.folder, self.cluster = folder, cluster
        self.image = folder / "image"
        subprocess.run([ROOT / "runtimes/rootfs", self.image], check=True, timeout=PATIENCE)

    @contextmanager
    def pod(self, pod, reaches=()):
        """A pod whose init containers have run, and whose network leads to these ports of the loopback interface."""
        folder = self.folder / pod["metadata"]["name"]
        folder.mkdir()
        with network(reaches) as own:
            made = Pod(self, pod, folder, own)
            for container in pod["spec"].get("initContainers", []):
                with made.running(container) as process:
                    assert process.wait() == 0, process.log()
            yield made


class Pod:
    def __init__(self, node, pod, folder, network):
        self.node, self.pod, self.folder, self.network = node, pod, folder, network

    def volume(self, name):
        """An emptyDir, which is anybody's."""
        path = self.folder / f"volume-{name}"
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        return path

    @contextmanager
    def running(self, container):
        """A container's process."""
        root = self.folder / f"root-{container['name']}"
        shutil.copytree(self.node.image, root, copy_function=os.link)
        termination = self.folder / f"termination-{container['name']}"
        termination.touch()
        termination.chmod(0o666)
        mounts = [(termination, "dev/termination-log"), ("/dev/null", "dev/null"), ("/dev/urandom", "dev/urandom")]
        for _, path in mounts:
            (root / path).touch()
        read_only = [root]
        for mount in container.get("volumeMounts", []):
            path = mount["mountPath"].lstrip("/")
            (root / path).mkdir(parents=True, exist_ok=True)
            mounts.append((self.volume(mount["name"]) / mount.get("subPath", ""), path))
            read_only += [root / path] if mount.get("readOnly") else []
        script = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}", f"mount --rbind /proc {root}/proc"]
        script += [f"mount --bind {source} {root}/{path}" for source, path in mounts]
        script += [f"mount -o remount,bind,ro {path}" for path in read_only]
        script.append(f'exec setpriv --no-new-privs /usr/sbin/chroot --userspec={NOBODY}:{NOBODY} --groups= {root} "$@"')
        program = [*(container.get("command") or ENTRYPOINT), *container.get("args", [])]
        own = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "unshare", "--mount"]
        process = Process([*own, "sh", "-c", "\n".join(script), "sh", *program], self.environment(container))
        try:
            yield process
        finally:
            process.kill()

    def environment(self, container):
        """As the kubelet resolves it, from the pod and from the cluster's secrets."""
        return {variable["name"]: self.value(variable) for variable in container.get("env", [])}

    def value(self, variable):
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            secret = self.node.cluster.get("secret", reference["name"], self.pod["metadata"]["namespace"])
            assert secret, f"there is no secret {reference['name']}"
            return base64.b64decode(secret["data"][reference["key"]]).decode()
        assert not source, f"where does {variable} come from?"
        return variable.get("value", "")

    def field(self, path):
        what, _, key = path.removeprefix("metadata.").partition("['")
        value = self.pod["metadata"].get(what, {} if key else "")
        return value.get(key.removesuffix("']"), "") if key else value

    @contextmanager
    def serving(self):
        """The server, once its probes pass."""
        [container] = self.pod["spec"]["containers"]
        with self.running(container) as process:
            server = Server(self.network, process, container)
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
                server.passes(probe)
            yield server


class Server:
    """A container that serves."""

    def __init__(self, network, process, container):
        self.network, self.process, self.container = network, process, container

    def passes(self, name):
        """Waits for a probe to succeed, as long as it may fail."""
        probe = self.container[name]
        until = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not self.succeeds(probe["httpGet"]):
            assert not self.process.ended(), f"the container ended: {self.process.log()}"
            assert time.monotonic() < until, f"{name} fails: {self.process.log()}"
            time.sleep(0.02)

    def succeeds(self, get):
        with suppress(OSError):
            return 200 <= self.request("GET", get["path"], port=get["port"]).status < 400

    def request(self, method, path, body=None, port=None):
        port = port or self.container["ports"][0]["containerPort"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.sock = self.network.connection(port)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    @contextmanager
    def exposed(self):
        """An address outside that leads to its first port."""
        port = self.container["ports"][0]["containerPort"]
        with forwarded(socket.create_server(("127.0.0.1", 0)), lambda: self.network.connection(port)) as listener:
            yield f"127.0.0.1:{listener.getsockname()[1]}"


class Network(Process):
    """Of a pod, held by a process that does nothing, as Kubernetes does it."""

    def __init__(self):
        super().__init__(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"], {})
        eventually(lambda: "up" in self.log() or self.ended(), "a network")
        assert not self.ended(), self.log()

    @property
    def pid(self):
        return self.child.pid

    def enter(self, make):
        """What is made inside: a socket stays in the network that it was made in."""
        libc = ctypes.CDLL(None, use_errno=True)

        def go(network):
            if libc.setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as there:
            go(there)
            try:
                return make()
            finally:
                go(home)

    def connection(self, port):
        """One to a port inside."""
        return self.enter(lambda: socket.create_connection(("127.0.0.1", port), PATIENCE))


@contextmanager
def network(reaches):
    """One of a pod's own, whose ports of these numbers lead to ours."""
    with ExitStack() as stack:
        own = Network()
        stack.callback(own.kill)
        for port in reaches:
            inside = own.enter(partial(socket.create_server, ("127.0.0.1", port)))
            stack.enter_context(forwarded(inside, partial(socket.create_connection, ("127.0.0.1", port))))
        yield own


@contextmanager
def forwarded(listener, connect):
    """Has what connects to a listener go on to what another connection leads to."""

    def go_on(connection):
        with connection, connect() as other:
            back = threading.Thread(target=pump, args=(other, connection), daemon=True)
            back.start()
            pump(connection, other)
            back.join()

    def listen():
        with suppress(OSError):
            while True:
                threading.Thread(target=go_on, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield listener
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
