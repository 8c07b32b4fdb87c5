"""A copy of the credentials works from anywhere, is readable by its owner only, and overwrites no file."""

import base64
from pathlib import Path

import pytest
import yaml

from controller.controlplane.credentials import refuse_existing, write
from controller.controlplane.errors import FileTakenError


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Return a kubeconfig as kwokctl writes it."""
    for name in ("ca.crt", "admin.crt", "admin.key"):
        (tmp_path / name).write_text(name)
    cluster = {"certificate-authority": str(tmp_path / "ca.crt"), "server": "https://127.0.0.1:25280"}
    user = {"client-certificate": str(tmp_path / "admin.crt"), "client-key": str(tmp_path / "admin.key")}
    path = tmp_path / "kubeconfig"
    document = {"clusters": [{"name": "a", "cluster": cluster}], "users": [{"name": "b", "user": user}]}
    path.write_text(yaml.safe_dump(document))
    return path


def test_certificates_and_keys_are_embedded(kubeconfig: Path, tmp_path: Path) -> None:
    """So the file works in a container; the rest of it is unchanged."""
    write(tmp_path / "copy", kubeconfig)

    document = yaml.safe_load((tmp_path / "copy").read_text())
    [cluster], [user] = document["clusters"], document["users"]
    assert cluster["cluster"] == {
        "certificate-authority-data": base64.b64encode(b"ca.crt").decode(),
        "server": "https://127.0.0.1:25280",
    }
    assert user["user"] == {
        "client-certificate-data": base64.b64encode(b"admin.crt").decode(),
        "client-key-data": base64.b64encode(b"admin.key").decode(),
    }


def test_only_the_owner_may_read_the_copy(kubeconfig: Path, tmp_path: Path) -> None:
    """It contains a private key."""
    write(tmp_path / "copy", kubeconfig)

    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere"])
def test_an_existing_path_is_refused(kubeconfig: Path, tmp_path: Path, kind: str) -> None:
    """Before a plane is started, and again when the file is written."""
    taken = tmp_path / "copy"
    if kind == "a file":
        taken.write_text("mine")
    else:
        taken.symlink_to(tmp_path / "nowhere")

    with pytest.raises(FileTakenError, match="copy exists"):
        refuse_existing(taken)
    with pytest.raises(FileTakenError, match="copy exists"):
        write(taken, kubeconfig)
    assert not (tmp_path / "nowhere").exists()
