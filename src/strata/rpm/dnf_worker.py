"""Runs under dnf's own interpreter: solve or pick requests, install files. JSON in, JSON out.

Not imported by strata: `import dnf` belongs to the system's Python. Progress goes to stderr as
`progress DONE TOTAL NAME` lines. An expected failure is an answer with `error`, status 0.
"""

import hashlib
import json
import os
import sys
from typing import Any

import dnf
import dnf.callback
import dnf.exceptions
import hawkey


def make_base(task: dict[str, Any]) -> Any:
    base = dnf.Base()
    conf = base.conf
    conf.installroot = task["root"]
    conf.cachedir = task["cachedir"]
    conf.persistdir = os.path.join(task["cachedir"], "persist")
    conf.logdir = os.path.join(task["cachedir"], "log")
    os.makedirs(conf.logdir, exist_ok=True)
    conf.history_record = False
    conf.plugins = False
    conf.gpgcheck = False
    conf.localpkg_gpgcheck = False
    conf.install_weak_deps = task.get("weak_deps", False)
    conf.tsflags = [] if task.get("documentation", True) else ["nodocs"]
    if task.get("test"):
        conf.tsflags += ["test"]
    conf.substitutions["arch"] = task["arch"]
    conf.substitutions["basearch"] = task["arch"]
    conf.substitutions["releasever"] = "unset"
    conf.zchunk = False
    if task.get("platform"):
        conf.module_platform_id = task["platform"]
    # A tree has one kernel: another build of it takes its place, as of any package.
    conf.installonlypkgs = []
    return base


def add_repos(base: Any, task: dict[str, Any]) -> None:
    for description in task["repos"]:
        repo = dnf.repo.Repo(description["id"], base.conf)
        repo.baseurl = [description["baseurl"]]
        repo.priority = description["priority"]
        repo.metadata_expire = 0
        repo.gpgcheck = False
        repo.skip_if_unavailable = False
        if description["cached"]:
            repo._repo.setSyncStrategy(dnf.repo.SYNC_ONLY_CACHE)
        else:
            # An expiry of 0 still takes what was cached in the same second.
            repo._repo.expire()
        repo.includepkgs = description["include"]
        repo.excludepkgs = description["exclude"]
        base.repos.add(repo)


def index_digests(base: Any) -> dict[str, str]:
    """The sha256 of the index that each repository was loaded from; its folder counts as used."""
    digests = {}
    for repo in base.repos.iter_enabled():
        folder = repo._repo.getCachedir()
        os.utime(folder)
        with open(os.path.join(folder, "repodata", "repomd.xml"), "rb") as stream:
            digests[repo.id] = hashlib.sha256(stream.read()).hexdigest()
    return digests


def nevra_of(package: Any) -> str:
    epoch = f"{package.epoch}:" if package.epoch else ""
    return f"{package.name}-{epoch}{package.version}-{package.release}.{package.arch}"


def leave_only(base: Any, query: Any, names: list[str]) -> None:
    """Of a query's packages, exclude those that are not in a list of NEVRAs."""
    wanted = set(names)
    base.sack.add_excludes(query.filter(pkg=[one for one in query if nevra_of(one) not in wanted]))


def restrict(base: Any, task: dict[str, Any], stays: list[str]) -> None:
    """Hide the candidates that a solve must not look at.

    stays: names whose packages are there already, where newer candidates do not count.
    """
    available = base.sack.query().available()
    if stays:
        base.sack.add_excludes(available.filter(name=stays))
    if task["exclude"]:
        base.sack.add_excludes(available.filter(name__glob=task["exclude"]))
    for description in task["repos"]:
        if description["only"] is not None:
            leave_only(base, available.filter(reponame=description["id"]), description["only"])
    pinned = [*task["pins"], *task["below"]]
    if pinned:
        names = {hawkey.split_nevra(name).name for name in pinned} - set(task["replace"])
        leave_only(base, available.filter(name=sorted(names)), pinned)


def solve(task: dict[str, Any]) -> dict[str, Any]:
    base = make_base(task)
    add_repos(base, task)
    base.fill_sack(load_system_repo=task["installed"])
    installed = base.sack.query().installed()
    replaced = set(task["replace"])
    restrict(base, task, sorted({one.name for one in installed} - replaced))
    below = {name for name in task["below"] if hawkey.split_nevra(name).name not in replaced}
    missing = []
    for name in sorted(below):
        try:
            base.install(name, strict=True)
        except dnf.exceptions.MarkingError:
            missing.append({"text": name, "source": "the layer below"})
    against = contradiction(base, task["requests"])
    if against:
        return {"error": "contradiction", **against}
    wanted = []
    for request in task["requests"]:
        text = request["text"]
        found = dnf.subject.Subject(text).get_best_query(base.sack)
        there = [*found.installed(), *(one for one in found if nevra_of(one) in below)]
        if any(one.name not in replaced for one in there):
            continue
        try:
            base.install(text, reponame=request["repo"] or None, strict=True)
        except dnf.exceptions.MarkingError:
            kept = [*map(nevra_of, installed), *task["below"]]
            missing.append({**request, **hidden(base, text, kept)})
            continue
        wanted.append(request)
    if missing:
        return {"error": "not-found", "requests": missing}
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        return {"error": "unsolvable", "message": str(error)}
    chosen = [one for one in base.transaction.install_set if nevra_of(one) not in below]
    return {"packages": describe(base, chosen, wanted), "indexes": index_digests(base)}


def contradiction(base: Any, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """A request that only other builds answer to than one that amends; empty for none."""
    amending: dict[str, tuple[dict[str, Any], set[str]]] = {}
    for request in requests:
        for one in query_of(base, request) if request["amends"] else ():
            amending.setdefault(one.name, (request, set()))[1].add(nevra_of(one))
    for request in requests:
        builds = [] if request["amends"] else list(query_of(base, request))
        names = {one.name for one in builds}
        if len(names) == 1 and names <= amending.keys():
            by, allowed = amending[builds[0].name]
            others = sorted(map(nevra_of, builds))
            if not allowed.intersection(others):
                return {"request": request, "build": others[-1], "by": by}
    return {}


def query_of(base: Any, request: dict[str, Any]) -> Any:
    return dnf.subject.Subject(request["text"]).get_best_query(base.sack)


def hidden(base: Any, text: str, below: list[str]) -> dict[str, str]:
    """Why no candidate answers to a text that a repository has: what is there in another build
    below, or that the treefile excludes it. Empty when no repository has it."""
    every = base.sack.query(flags=hawkey.IGNORE_EXCLUDES).available()
    found = dnf.subject.Subject(text).get_best_query(base.sack, query=every)
    names = {one.name for one in found}
    for name in below:
        if hawkey.split_nevra(name).name in names:
            return {"below": name}
    return {"hidden": nevra_of(found[0])} if found else {}


def find(task: dict[str, Any]) -> dict[str, Any]:
    """What the repositories have of some names: every build of them."""
    base = make_base(task)
    add_repos(base, task)
    base.fill_sack(load_system_repo=False)
    found = base.sack.query().filter(name=task["names"])
    return {"packages": [row(one) for one in found], "indexes": index_digests(base)}


def notices(task: dict[str, Any]) -> dict[str, Any]:
    """When the repositories were made, and the security advisories of some packages."""
    base = make_base(task)
    add_repos(base, task)
    base.fill_sack(load_system_repo=False)
    wanted = set(task["packages"])
    found: dict[str, dict[str, Any]] = {}
    for package in base.sack.query():
        if nevra_of(package) not in wanted:
            continue
        for advisory in package.get_advisories(hawkey.EQ):
            if advisory.type != hawkey.ADVISORY_SECURITY:
                continue
            bugs = [
                [one.url, one.title]
                for one in advisory.references
                if one.type == hawkey.REFERENCE_BUGZILLA
            ]
            empty = {"id": advisory.id, "severity": advisory.severity, "packages": [], "bugs": bugs}
            found.setdefault(advisory.id, empty)["packages"].append(nevra_of(package))
    times = {repo.id: repo._repo.getMaxTimestamp() for repo in base.repos.iter_enabled()}
    return {
        "times": times,
        "advisories": list(found.values()),
        "indexes": index_digests(base),
    }


def row(package: Any) -> dict[str, Any]:
    kind, digest = package.returnIdSum()
    return {
        "nevra": nevra_of(package),
        "repo": package.reponame,
        "location": package.location,
        "checksum": [kind, digest],
        "size": package.downloadsize,
        "sourcerpm": package.sourcerpm or "",
    }


def describe(base: Any, chosen: list[Any], wanted: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The packages to install, each with the line that named it or the package that needs it."""
    query = base.sack.query().filterm(pkg=chosen).apply()
    reasons: dict[Any, dict[str, str]] = {}
    queue = []
    for request in wanted:
        found = dnf.subject.Subject(request["text"]).get_best_query(base.sack, query=query)
        for package in sorted(found):
            if package not in reasons:
                reasons[package] = {"source": request["source"]}
                queue.append(package)
    while queue:
        package = queue.pop(0)
        needed = list(package.requires) + list(package.recommends)
        for other in sorted(query.filter(provides=needed)) if needed else ():
            if other not in reasons:
                reasons[other] = {"required-by": nevra_of(package)}
                queue.append(other)
    return [{**row(package), **reasons.get(package, {})} for package in chosen]


def pick(task: dict[str, Any]) -> dict[str, Any]:
    """The newest package of each request as it is, without what it depends on."""
    base = make_base(task)
    add_repos(base, task)
    base.fill_sack(load_system_repo=False)
    priorities = {repo["id"]: (repo["priority"], at) for at, repo in enumerate(task["repos"])}
    picked, missing = {}, []
    for request in task["requests"]:
        found = dnf.subject.Subject(request["text"]).get_best_query(base.sack).available()
        found = found.filter(arch=[task["arch"], "noarch"])
        if not found:
            missing.append(request)
            continue
        first = min(priorities[package.reponame][0] for package in found)
        best = max(package for package in found if priorities[package.reponame][0] == first)
        same = [package for package in found if nevra_of(package) == nevra_of(best)]
        package = min(same, key=lambda each: priorities[each.reponame])
        picked[nevra_of(package)] = {**row(package), "source": request["source"]}
    if missing:
        return {"error": "not-found", "requests": missing}
    return {"packages": list(picked.values()), "indexes": index_digests(base)}


class Progress(dnf.callback.TransactionProgress):  # type: ignore[misc]
    """One line on stderr for each package whose files are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def progress(
        self, package: Any, action: int, ti_done: int, ti_total: int, ts_done: int, ts_total: int
    ) -> None:
        if ti_done == ti_total and action == dnf.callback.PKG_INSTALL:
            self.done += 1
            sys.stderr.write(f"progress {self.done} {ts_total}\n")

    def error(self, message: str) -> None:
        sys.stderr.write(message + "\n")


def install(task: dict[str, Any]) -> dict[str, Any]:
    base = make_base(task)
    base.fill_sack(load_system_repo=task["installed"], load_available_repos=False)
    packages = base.add_remote_rpms(task["files"], strict=True)
    for package in packages:
        base.package_install(package, strict=True)
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        return {"error": "unsolvable", "message": str(error)}
    going = [str(one) for one in base.transaction.remove_set if one.name not in task["replaces"]]
    if going:
        return {"error": "unsolvable", "message": "this would remove " + ", ".join(going)}
    count = len(base.transaction.install_set)
    try:
        base.do_transaction(display=Progress())
    except dnf.exceptions.Error as error:
        return {"error": "failed", "message": str(error)}
    return {"installed": count}


def main() -> None:
    task = json.load(sys.stdin)
    try:
        tasks = {"solve": solve, "pick": pick, "find": find, "install": install, "notices": notices}
        answer = tasks[task["task"]](task)
    except dnf.exceptions.RepoError as error:
        answer = {"error": "repository", "message": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
