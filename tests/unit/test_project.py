from pathlib import Path

import pytest
from trainer import settings as trainer_settings

from include.project import OWN_TRAIN_ARGS, PROJECTS_FOLDER, Project, ProjectError, load, load_all


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def mistakes_of(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        load(path, environ or {})
    assert str(caught.value).splitlines() == [str(mistake) for mistake in caught.value.mistakes]
    return [f"{mistake.line}: {mistake.message}" for mistake in caught.value.mistakes]


def test_shipped_projects_are_usable_and_differ_in_their_trainer() -> None:
    projects = load_all(PROJECTS_FOLDER, {"AIRLOCK_DEVICE": "cpu"})
    assert not projects.broken
    assert {"digits", "shapes"} <= set(projects.usable)
    assert projects.usable["digits"].trainer != projects.usable["shapes"].trainer
    assert projects.usable["digits"].device == "cpu"


def test_an_empty_file_is_a_project_with_a_bucket_of_its_name_on_cuda(tmp_path: Path) -> None:
    project = load(write(tmp_path, "bird-songs", ""), {})
    assert (project.name, project.bucket, project.device) == ("bird-songs", "bird-songs-train", "cuda")


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "digits",
        "epochs: many\nimage_sise: 32\n\ngate:\n  min_gain: 0.1\n  min_pictures: 0\nbucket: dvc\n"
        "train_args:\n  imgsz: 3\n  fraction: 0.5\nmemory_bytes: 2 parsecs\n",
    )
    assert mistakes_of(path) == [
        "1: epochs: Input should be a valid integer, unable to parse string as an integer",
        "2: image_sise: there is no such setting; did you mean `image_size`?",
        "6: gate.min_pictures: Input should be greater than or equal to 1",
        "7: bucket: 'dvc' is Airlock's own bucket",
        "9: train_args.imgsz: is set by Airlock; use `image_size`",
        "10: train_args.fraction: is set by Airlock",
        "11: memory_bytes: '2 parsecs' is not a size; write it like 2g or 512m",
    ]


def test_a_setting_written_twice_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes_of(write(tmp_path, "digits", "epochs: 3\nseed: 1\nepochs: 4\n")) == [
        "3: epochs: is already set in line 1"
    ]


NO_SETTINGS = [
    "epochs: [1",
    "- a\n- b\n",
    "just words",
    "a: *nothing",
    "\x00",
    "seed: 2026-13-01",
    "train_args: &a {x: *a}",
]


@pytest.mark.parametrize("text", NO_SETTINGS)
def test_what_is_not_settings_is_an_error_with_a_line(tmp_path: Path, text: str) -> None:
    assert mistakes_of(write(tmp_path, "digits", text))[0].startswith("1: ")


@pytest.mark.parametrize("name", ["Digits", "1digits", "di_gits", "di--gits", "digits-", "d" * 41, "airlock", "dé"])
def test_a_name_that_is_not_dns_safe_is_refused(tmp_path: Path, name: str) -> None:
    assert "name" in mistakes_of(write(tmp_path, name, "epochs: 3"))[0]


def test_environment_is_filled_in_with_the_type_it_reads_as(tmp_path: Path) -> None:
    path = write(tmp_path, "digits", 'device: ${DEVICE}\nepochs: ${EPOCHS:-12}\nbucket: "${B:-pictures}"\n')
    project = load(path, {"DEVICE": "cpu"})
    assert (project.device, project.epochs, project.bucket) == ("cpu", 12, "pictures")


def test_a_missing_environment_variable_is_named_with_its_line(tmp_path: Path) -> None:
    found = mistakes_of(write(tmp_path, "digits", "seed: 1\ndevice: ${DEVICE}\n"))
    assert found[0].startswith("2: the environment variable DEVICE is not set")


@pytest.mark.parametrize(
    ("text", "size"), [("2g", 2 << 30), ("512m", 512 << 20), ("2GiB", 2 << 30), ("536870912", 512 << 20)]
)
def test_sizes_are_written_as_people_write_them(tmp_path: Path, text: str, size: int) -> None:
    assert load(write(tmp_path, "digits", f"memory_bytes: {text}"), {}).memory_bytes == size


def test_a_broken_file_leaves_the_other_projects_usable_and_its_own_route_known(tmp_path: Path) -> None:
    write(tmp_path, "broken", "epochs: many")
    write(tmp_path, "fine", "epochs: 3")
    write(tmp_path, "Not A Name", "epochs: 3")
    projects = load_all(tmp_path, {})
    assert set(projects.usable) == {"fine"}
    assert set(projects.broken) == {"broken", "Not A Name"}
    assert projects.names == {"fine", "broken"}


def test_two_projects_may_not_share_a_bucket(tmp_path: Path) -> None:
    write(tmp_path, "a", "bucket: pictures")
    write(tmp_path, "b", "bucket: pictures")
    projects = load_all(tmp_path, {})
    assert set(projects.usable) == {"a"}
    assert "already the bucket of the project 'a'" in str(projects.broken["b"])


def test_a_bucket_stays_with_the_project_that_it_is_named_after(tmp_path: Path) -> None:
    write(tmp_path, "alpha", "bucket: digits-train\n")
    write(tmp_path, "digits", "")
    projects = load_all(tmp_path, {})
    assert set(projects.usable) == {"digits"}
    assert "already the bucket of the project 'digits'" in str(projects.broken["alpha"])


def test_a_name_in_the_file_is_refused_since_the_file_has_one(tmp_path: Path) -> None:
    assert mistakes_of(write(tmp_path, "digits", "epochs: 3\nname: numbers\n")) == [
        "2: the file's name is the project's name; remove this line"
    ]


def test_a_project_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    project = load(write(tmp_path, "digits", ""), {})
    with pytest.raises(ValueError, match="frozen"):
        project.epochs = 3
    assert isinstance(project, Project)


def test_weights_lie_at_the_top_of_the_bucket_where_they_make_no_class(tmp_path: Path) -> None:
    assert load(write(tmp_path, "digits", "model: s3:mine.pt"), {}).model == "s3:mine.pt"
    (mistake,) = mistakes_of(write(tmp_path, "digits", "model: s3:weights/mine.pt"))
    assert mistake == (
        "1: model: 's3:weights/mine.pt' lies in a folder, which would be a class: put it at the bucket's top level"
    )


def test_a_project_may_ask_for_nothing_that_the_trainer_refuses(tmp_path: Path) -> None:
    assert OWN_TRAIN_ARGS.keys() == trainer_settings.OWN_TRAIN_ARGS
    for setting in ("image_size: 48", "image_size: 16", "batch: 1", "model: yolo11n.yaml"):
        (mistake,) = mistakes_of(write(tmp_path, "strict", setting))
        assert mistake.startswith(f"1: {setting.split(':')[0]}: ")
