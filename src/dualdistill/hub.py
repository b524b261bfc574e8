"""Published models by name: `zoo:NAME` of the package, `hf:owner/name` of the Hugging Face hub.

The latter is the detector in the file `FILE` of that repository (extra `hub`). The hub's client reads its own
environment: HF_TOKEN, HF_HOME (cache), HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from pathlib import Path
from types import ModuleType

from dualdistill import zoo
from dualdistill.errors import UserError, first_line, optional

PREFIX = "hf:"
FILE = "model.safetensors"


def client() -> ModuleType:
    """The module `huggingface_hub`; a UserError where it is not installed."""
    return optional("huggingface_hub", "hub", "The Hugging Face hub")


def repository(name: str) -> tuple[str, str | None]:
    """Repository and revision of `owner/name` or `owner/name@revision`, with or without "hf:". Raises UserError for a
    name of another form."""
    repo, _, revision = name.removeprefix(PREFIX).partition("@")
    if len(parts := repo.split("/")) != 2 or not all(parts):
        raise UserError(
            f"{name!r} is no repository of the Hugging Face hub: expected owner/name, such as me/my-student."
        )
    return repo, revision or None


def resolve(given: str | Path) -> Path:
    """The file of `zoo:NAME` or `hf:owner/name`, downloaded or in the client's cache; all else is a path already.
    Raises UserError for a name that the zoo does not have, and if the hub cannot be reached or has no such file."""
    if str(given).startswith(zoo.PREFIX):
        return zoo.path(str(given))
    if not str(given).startswith(PREFIX):
        return Path(given)
    repo, revision = repository(str(given))
    hub = client()
    try:
        return Path(hub.hf_hub_download(repo, FILE, revision=revision))
    except (hub.errors.HTTPError, OSError) as error:
        raise UserError(
            f"{given} cannot be downloaded ({first_line(error)}). Check the name, the network, and HF_TOKEN for a "
            "private repository."
        ) from None


def name_of(file: Path) -> str | None:
    """`zoo:NAME` or `hf:owner/name` of a weights file; None for files that are not published."""
    for folder in file.parents:
        if folder.name.startswith("models--"):  # of the client's cache
            return PREFIX + folder.name.removeprefix("models--").replace("--", "/", 1)
    return zoo.name_of(file)


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Make the repository if it is missing, and commit all files of a folder to it; returns its address. Raises
    UserError if the hub cannot be reached, or refuses."""
    hub = client()
    api = hub.HfApi()
    try:
        address = str(api.create_repo(repo, private=private, exist_ok=True))
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except (hub.errors.HTTPError, OSError) as error:
        raise UserError(
            f"{repo} cannot be written ({first_line(error)}). Log in with `hf auth login` or set HF_TOKEN to a token "
            "that may write there."
        ) from None
    return address
