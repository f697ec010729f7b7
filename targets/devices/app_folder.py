"""The current release in the folder of a debuggable app, by Android's `run-as`.

files/edge-deploy/<model>     the model, under its own name
files/edge-deploy/release     the id of its release; written last, so that it names what is whole

The app's folder is another user's: contents go through a pipe, and are hashed where they lie.
"""

import re

from targets.devices.shell_session import ShellSession
from targets.errors import AgentFailed, HashMismatch, InputError, NotSupported

_PACKAGE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")  # as Android has them, so never a word for the shell
_FOLDER = "files/edge-deploy"

_ASK = f"""run-as "$1" sh -c 'cat {_FOLDER}/release 2>/dev/null || echo -' 2>&1; true"""
_PUT = f"""
cat "$2" | run-as "$1" sh -c 'umask 077; mkdir -p {_FOLDER} && cd {_FOLDER} && rm -f release && cat >"$0.new" &&
  found=$(sha256sum <"$0.new") && if [ "${{found%% *}}" = "$1" ]; then
    sync; mv -f "$0.new" "$0" && for old in *; do [ "$old" = "$0" ] || rm -f "$old"; done
    echo "$2" >release.new && sync && mv -f release.new release
  else rm -f "$0.new"; echo changed; fi' "$3" "$4" "$5"
"""
_REMOVE = f"""run-as "$1" rm -rf {_FOLDER}"""


class AppFolder:
    """Where the app of this package finds the release that is current."""

    def __init__(self, session: ShellSession, package: str) -> None:
        """Raises InputError for what is no package's name."""
        if not _PACKAGE.fullmatch(package):
            raise InputError(f"{session.name}: {package!r} is no name of an app", hint="app: com.example.app")
        self._session, self._package = session, package

    def release(self) -> str:
        """The id of the release there; empty for none. Raises NotSupported when Android lets us not in."""
        said = self._session.script(_ASK, self._package, doing="looking into the app's folder").strip()
        if re.fullmatch(r"[0-9a-f]{64}", said):
            return said
        if said not in ("", "-"):
            raise self._refused(said)
        return ""

    def put(self, release: str, path: str, name: str, digest: str) -> None:
        """Copy the model at this path of the device; raises HashMismatch, or what keeps us out."""
        words = (self._package, path, name, digest, release)
        try:
            said = self._session.script(_PUT, *words, doing="copying the model into the app's folder").strip()
        except AgentFailed as fault:
            raise self._refused(fault.message) from fault
        if said:
            told = f"the model has changed on its way into the folder of {self._package}"
            raise HashMismatch(f"{self._session.name}: {told}", hint="try again")

    def remove(self) -> None:
        self._session.script(_REMOVE, self._package, doing="removing the model from the app's folder")

    def _refused(self, said: str) -> NotSupported:
        """In the words of `run-as`, of which older Androids have others."""
        name, lower = self._session.name, said.lower()
        if "not debuggable" in lower:
            hint = "install a debug build of it, or leave `app:` out and fetch the model with `activate_hook:`"
            return NotSupported(f"{name}: {self._package} is not debuggable: Android lets only itself in", hint=hint)
        if "unknown" in lower:
            hint = "adb install the app first, for the user who is logged in"
            return NotSupported(f"{name}: there is no app {self._package} on it", hint=hint)
        return NotSupported(f"{name}: no way into the folder of {self._package}: {said}", hint="see `adb shell run-as`")
