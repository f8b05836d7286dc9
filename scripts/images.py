"""Builds the images that are missing. A tag is a hash of what the image is built from, and never moves."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import settings_file

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".airlock"
# Public default, by digest; Debian 12 with Python 3.11 whichever way it comes.
PUBLIC_BASE = "python:3.11.10-slim-bookworm@sha256:5148c0e4bbb64271bca1d3322360ebf4bfb7564507ae32dd639322e4952a6b16"
LOCAL_BASE = "airlock-debian:bookworm"
LOCAL_BASE_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
PUBLIC_INDEX = "https://pypi.org/simple"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Downloads wait on the network, so that a third build still helps two cores.
BUILDS_AT_A_TIME = 3


class BuildError(Exception):
    """An image could not be built; the message names it, the cause and where to look."""


@dataclass(frozen=True)
class Image:
    """What an image is built from. `files` maps names in the build context to paths on the host."""

    name: str
    dockerfile: Path
    files: dict[str, Path]
    args: dict[str, str] = field(default_factory=dict)
    # Files whose content does not belong to the hash: their names say what is in them, or nothing depends on it.
    hashed_by_name: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """`airlock-<name>:<first 12 of the sha256 of Dockerfile, context and arguments>`."""
        digest = hashlib.sha256(self.dockerfile.read_bytes())
        for name, path in sorted(self.files.items()):
            content = b"" if name.startswith(self.hashed_by_name or ("\0",)) else path.read_bytes()
            digest.update(f"{name}\0{'x' if is_program(path) else '-'}\0".encode() + hashlib.sha256(content).digest())
        digest.update(json.dumps(self.args, sort_keys=True).encode())
        return f"airlock-{self.name}:{digest.hexdigest()[:12]}"


def say(text: str) -> None:
    """One line for the person who waits."""
    print(f"airlock: {text}", file=sys.stderr, flush=True)


def context_of(folder: Path) -> dict[str, Path]:
    """Every file below a folder that belongs into its build context."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "Dockerfile" and not is_clutter(path.relative_to(folder))
    }


def is_program(path: Path) -> bool:
    """Whether its owner may execute the file."""
    return bool(path.stat().st_mode & 0o100)


def is_clutter(path: Path) -> bool:
    """Caches of tools and other hidden files: no image is made of them."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def exists(tag: str) -> bool:
    """True where the engine has the image."""
    return subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode == 0


def build(image: Image) -> str:
    """Builds the image where it is missing and returns its tag. Raises BuildError."""
    tag = image.tag
    if exists(tag):
        return tag
    started = time.monotonic()
    log = STATE / "logs" / f"build-{image.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE) as folder, log.open("wb") as output:
        for name, path in image.files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            put(path, target)
        # Whoever runs what is in the image is not who owns this checkout.
        for copy in Path(folder).rglob("*"):
            copy.chmod(0o755 if copy.is_dir() or is_program(copy) else 0o644)
        shutil.copy(image.dockerfile, Path(folder, "Dockerfile"))
        command = ["docker", "build", "--tag", tag]
        for key, value in image.args.items():
            command += ["--build-arg", f"{key}={value}"]
        # Another builder than the engine's own would look for the base image in a registry.
        environment = {**os.environ, "BUILDX_BUILDER": "default"}
        result = subprocess.run([*command, folder], stdout=output, stderr=subprocess.STDOUT, env=environment)
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"the image {image.name} could not be built; the end of {log}:\n{tail}")
    say(f"built {tag} in {time.monotonic() - started:.0f} s")
    return tag


def put(source: Path, target: Path) -> None:
    """A copy; of a wheel, which has some hundred megabytes, a hard link where the file system allows one."""
    with contextlib.suppress(OSError):
        if source.suffix == ".whl":
            return os.link(source, target)
    shutil.copy2(source, target)


def base(base_image: str, settings: dict[str, str]) -> Image:
    """What every image of ours stands on. Newer certificates of this machine make no other image."""
    if not CERTIFICATES.exists():
        raise BuildError(f"there is no {CERTIFICATES} here: apt-get install ca-certificates")
    args = {"BASE_IMAGE": base_image, "PYPI_INDEX": settings.get("PYPI_INDEX") or PUBLIC_INDEX}
    certificates = "ca-certificates.crt"
    folder = ROOT / "images/base"
    files = {certificates: CERTIFICATES, "healthy": folder / "healthy"}
    return Image("base", folder / "Dockerfile", files, args, (certificates,))


def base_image(settings: dict[str, str]) -> str:
    """The image that the base stands on: the user's, the registry's, or one made here from Debian's packages."""
    if chosen := settings.get("BASE_IMAGE"):
        return chosen
    if exists(LOCAL_BASE):
        return LOCAL_BASE
    # What was built on the registry's image goes on without the registry.
    if exists(base(PUBLIC_BASE, settings).tag) or exists(PUBLIC_BASE):
        return PUBLIC_BASE
    pulled = subprocess.run(["docker", "pull", "-q", PUBLIC_BASE], capture_output=True, text=True)
    if pulled.returncode == 0:
        return PUBLIC_BASE
    make_local_base(pulled.stderr.strip().rpartition("\n")[2])
    return LOCAL_BASE


def make_local_base(why: str) -> None:
    """Imports a minimal Debian 12 as an image. Raises BuildError where this machine cannot make one."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            f"no image registry answers ({PUBLIC_BASE} could not be pulled: {why}), and a base image can only be made "
            "from Debian's packages by root on Debian or Ubuntu. Run this as root, or set BASE_IMAGE in .env"
        )
    say(f"no image registry answers ({why}): installing mmdebstrap, making the base image from Debian's packages")
    log = STATE / "logs" / "mmdebstrap.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    tar = STATE / "debian.tar"
    # Ubuntu does not bring the keys that Debian's packages are signed with.
    tools = ["mmdebstrap", "debian-archive-keyring", "gpg"]
    with log.open("wb") as output:
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *tools],
            ["mmdebstrap", "--variant=minbase", f"--include={LOCAL_BASE_PACKAGES}", "bookworm", str(tar)],
            ["docker", "import", str(tar), LOCAL_BASE],
        ):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode != 0:
                raise BuildError(f"the base image could not be made: `{' '.join(command)}` failed; see {log}")
    tar.unlink()


def trainer_variants(projects: list[str]) -> list[str]:
    """The trainer variants that these projects name (none given: all projects); no other is built."""
    used = set()
    for path in sorted((ROOT / "include" / "projects").glob("[!.]*.yaml")):  # hidden ones are an editor's
        if projects and path.stem not in projects:
            continue
        match = re.search(r"""^trainer\s*:\s*["']?([\w.-]+)""", path.read_text(), re.MULTILINE)
        used.add(match[1] if match else "default")
    known = {path.name for path in (ROOT / "images" / "trainer" / "variants").iterdir() if path.is_dir()}
    for missing in sorted(used - known):
        say(f"a project names the trainer {missing!r}, which is not in images/trainer/variants; its runs will fail")
    return sorted(used & known)


def fetch_torch(settings: dict[str, str], trainers: list[Image]) -> None:
    """Fills the wheelhouse with a CPU build of PyTorch where PyTorch's own index does not answer.

    pip is asked, with this machine's settings: a mirror or a folder of wheels that it knows may have the build.
    """
    wheels = ROOT / "images" / "trainer" / "wheels"
    if settings["AIRLOCK_DEVICE"] != "cpu" or settings.get("TORCH_INDEX"):
        return
    versions = {torch_version(image) for image in trainers if not exists(image.tag)}
    missing = sorted(version for version in versions if not any(wheels.glob(f"torch-{version}*.whl")))
    reachable = ["curl", "-sfI", "--max-time", "10", "-o", "/dev/null", f"{TORCH_CPU_INDEX}/torch/"]
    if not missing or subprocess.run(reachable).returncode == 0:
        return
    for version in missing:
        fetch_wheel(version, wheels)


def torch_version(trainer: Image) -> str:
    """The version of torch that a trainer image pins."""
    (text,) = [path.read_text() for name, path in trainer.files.items() if name.endswith("/torch.txt")]
    found = re.search(r"^torch==(\S+)", text, re.MULTILINE)
    if not found:
        raise BuildError(f"the variant of {trainer.name} has no line `torch==…` in its torch.txt")
    return found[1]


def fetch_wheel(version: str, wheels: Path) -> None:
    """Puts a CPU build of torch into the wheelhouse. Raises BuildError where pip knows none."""
    say(f"PyTorch's index does not answer: asking pip for a CPU build of torch {version}")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--python-version",
        "3.11",
        "--only-binary=:all:",
    ]
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        subprocess.run([*pip, "--dest", folder, f"torch=={version}+cpu"], capture_output=True)
        for wheel in Path(folder).glob("torch-*.whl"):
            shutil.move(wheel, wheels / wheel.name)
            return
    raise BuildError(
        f"no CPU build of torch {version} was found ({TORCH_CPU_INDEX} does not answer, and pip knows none). "
        "Put its wheel into images/trainer/wheels/, or set TORCH_INDEX in .env to an index that has one"
    )


def trainer_images(settings: dict[str, str], variants: list[str], base: str) -> dict[str, Image]:
    """One image for each variant."""
    folder = ROOT / "images" / "trainer"
    index = settings.get("TORCH_INDEX") or (
        TORCH_CPU_INDEX if settings["AIRLOCK_DEVICE"] == "cpu" else settings.get("PYPI_INDEX") or PUBLIC_INDEX
    )
    return {
        variant: Image(
            name=f"trainer-{variant}",
            dockerfile=folder / "Dockerfile",
            files={
                name: path
                for name, path in context_of(folder).items()
                if (not name.startswith("variants/") or name.startswith(f"variants/{variant}/"))
                and (settings["AIRLOCK_DEVICE"] == "cpu" or not name.endswith(".whl"))
            },
            args={"AIRLOCK_BASE": base, "VARIANT": variant, "TORCH_INDEX": index},
            hashed_by_name=("wheels/",),
        )
        for variant in variants
    }


def service_images(settings: dict[str, str], base: str) -> list[Image]:
    """Everything but the base and the trainers, the slowest builds first."""
    images = []
    for name in ("mlflow", "airflow", "api", "postgres", "haproxy", "docker-gate", "s3"):
        folder = ROOT / "images" / name
        files = {"requirements.txt": ROOT / "requirements.txt"} if name == "airflow" else context_of(folder)
        args = {"AIRLOCK_BASE": base}
        if name == "api" and settings.get("API_DEVICE") == "cuda":
            args["REQUIREMENTS"] = "requirements-cuda.txt"
        images.append(Image(name, folder / "Dockerfile", files, args))
    return images


def main(projects: list[str]) -> None:
    """Builds what these projects (none named: all) lack, and writes the tags where Compose and Airflow read them."""
    settings = settings_file.read(ROOT / ".env")
    STATE.joinpath("state").mkdir(parents=True, exist_ok=True)
    base_tag = build(base(base_image(settings), settings))
    wanted = trainer_variants(projects)
    variants = [
        variant
        for variant, image in trainer_images(settings, trainer_variants([]), base_tag).items()
        if variant in wanted or exists(image.tag)
    ]
    fetch_torch(settings, list(trainer_images(settings, variants, base_tag).values()))
    # Again: the wheelhouse, a part of the build context, may just have been filled.
    trainers = list(trainer_images(settings, variants, base_tag).values())
    services = service_images(settings, base_tag)
    with concurrent.futures.ThreadPoolExecutor(BUILDS_AT_A_TIME) as pool:
        tags = dict(zip([i.name for i in (*trainers, *services)], pool.map(build, (*trainers, *services)), strict=True))
    write(
        STATE / "state" / "images.json",
        json.dumps(
            {
                "trainer": {
                    name.removeprefix("trainer-"): tag for name, tag in tags.items() if name.startswith("trainer-")
                },
                "api": tags["api"],
            },
            indent=1,
        ),
    )
    names = {**tags, "base": base_tag}
    lines = [f"AIRLOCK_IMAGE_{re.sub('[-.]', '_', name).upper()}={tag}" for name, tag in names.items()]
    lines.append(f"AIRLOCK_CODE_COMMIT={code_commit()}")
    socket = settings.get("DOCKER_SOCKET") or "/var/run/docker.sock"
    if not os.path.exists(socket):
        raise BuildError(f"there is no {socket}: set DOCKER_SOCKET in .env to the engine's socket")
    lines.append(f"DOCKER_SOCKET_GID={os.stat(socket).st_gid}")
    write(STATE / "images.env", "\n".join(lines) + "\n")


def code_commit() -> str:
    """The commit of this checkout, `-dirty` where it was changed since; `unknown` outside git, which is said."""
    # A checkout of another owner, which git would refuse: who may run this may run what is in it.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    command += ["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    git = subprocess.run(command, capture_output=True, text=True)
    if git.returncode != 0:
        say(f"the commit of this checkout is not known, so runs and releases will not name it ({git.stderr.strip()})")
        return "unknown"
    return git.stdout.strip()


def write(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BuildError, settings_file.SettingsError) as error:
        sys.exit(f"airlock: {error}")
    except KeyboardInterrupt:
        sys.exit("airlock: interrupted; what is built already is not built again")
