"""Accounts, associations and limits through sacctmgr: for the command-line adapter and for pyslurm, which
has none.

Every change costs slurmdbd about 0.3 s, so equal changes go together. One after the other, never at once:
sixteen
parallel additions made slurmdbd 22.05 end itself ("unable to resolve deadlock").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from scheduler.clusters.base import OUR_PREFIX, Account, Garbled, InUse, Refused
from scheduler.clusters.names import check_account, plain_text, require_account
from scheduler.clusters.slurm_text import Unreadable, table
from scheduler.clusters.slurm_tools import Tools

# A command line's length is limited, and so is how long slurmdbd may be kept from others.
BATCH = 500
_ORGANIZATION = "kezek"
_BUSY = re.compile(r"\bA = (\S+)")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Limits:
    """What a QOS allows: GPU-minutes in all, and GPUs at a time."""

    minutes: int | None
    gpus: int | None

    def words(self, cores_per_gpu: int) -> tuple[str, str]:
        """For sacctmgr, which takes -1 for no limit. With the GPUs go their cores, or neighbours get none."""
        cores = -1 if self.gpus is None or not cores_per_gpu else self.gpus * cores_per_gpu
        return (
            f"GrpTRESMins=gres/gpu={_or_none(self.minutes)}",
            f"GrpTRES=gres/gpu={_or_none(self.gpus)},cpu={cores}",
        )


@dataclass
class _Seen:
    """What accounting has under our prefix: limits by QOS, and of each account the logins with their QOS."""

    descriptions: dict[str, str] = field(default_factory=dict)
    limits: dict[str, _Limits] = field(default_factory=dict)
    decaying: set[str] = field(default_factory=set)
    logins: dict[str, dict[str, str]] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)


class SlurmAccounts:
    """The account half of the Cluster protocol; ``cluster_name`` is Slurm's own name for the cluster."""

    def __init__(
        self,
        tools: Tools,
        live: Callable[[Sequence[str]], set[tuple[str, str]]],
        cores_per_gpu: Callable[[], int],
    ) -> None:
        """``live`` tells (account, login) of every job that waits or runs in some accounts."""
        self._tools = tools
        self._cores_per_gpu = cores_per_gpu
        # slurmdbd refuses to remove who has jobs, but after a restart it has not heard of all of them.
        self._live = live

    def read(self, cluster_name: str) -> list[Account]:
        """As Cluster.accounts. A login whose association is not as it should be reads ``login (QOS …)``:
        different from any login, so that a comparison finds it and save() corrects it."""
        seen = self._see(cluster_name)
        return [
            Account(
                name,
                description,
                seen.limits[name].minutes if name in seen.limits else None,
                frozenset(
                    login if qos == name else f"{login} (QOS {qos})"
                    for login, qos in seen.logins.get(name, {}).items()
                ),
                seen.shares.get(name),
                seen.limits[name].gpus if name in seen.limits else None,
            )
            for name, description in sorted(seen.descriptions.items())
        ]

    def _see(self, cluster_name: str) -> _Seen:
        seen = _Seen()
        for name, description in self._show("account", "account,descr", 2):
            if name.startswith(OUR_PREFIX):
                seen.descriptions[name] = description
        for name, minutes, gpus, flags in self._show("qos", "name,grptresmins,grptres,flags", 4):
            if name.startswith(OUR_PREFIX):
                seen.limits[name] = _Limits(self._limit(minutes), self._limit(gpus))
                if "NoDecay" not in flags.split(","):
                    seen.decaying.add(name)
        columns = "account,user,qos,defaultqos,fairshare"
        for name, login, qos, default, shares in self._show("assoc", columns, 5, f"cluster={cluster_name}"):
            if not login and name in seen.descriptions and shares.isdecimal():
                seen.shares[name] = int(shares)
            if login and name in seen.descriptions:
                logins = seen.logins.setdefault(name, {})
                # Of several (one a partition) the wrong one counts.
                if logins.get(login, name) == name:
                    logins[login] = qos if default == qos else f"{qos}, default {default or 'none'}"
        return seen

    def _show(self, what: str, columns: str, count: int, *where: str) -> list[list[str]]:
        output = self._tools.run("sacctmgr", "-n", "-P", "show", what, *where, f"format={columns}")
        try:
            return table(output, count)
        except Unreadable as error:
            raise Garbled.said(self._tools.slug, f"sacctmgr show {what}: {error}") from error

    def _limit(self, limits: str) -> int | None:
        for item in limits.split(","):
            name, _, count = item.partition("=")
            if name == "gres/gpu":
                if not count.isdecimal():
                    raise Garbled.said(self._tools.slug, f"sacctmgr show qos: not a limit: {limits[:200]}")
                return int(count)
        return None

    def save(self, accounts: Sequence[Account], cluster_name: str) -> None:
        """As Cluster.save_accounts; raises InUse when a login that must go has jobs, after doing all else."""
        for account in accounts:
            check_account(self._tools.slug, account)
        if not accounts:
            return
        seen = self._see(cluster_name)
        self._save_limits(accounts, seen)
        self._load(accounts, seen, cluster_name)
        self._save_shares(accounts, seen, cluster_name)
        self._correct_logins(accounts, seen)
        in_use = self._remove_logins(accounts, seen, cluster_name)
        if in_use:
            raise in_use
        self._verify(accounts, cluster_name)

    def _save_limits(self, accounts: Sequence[Account], seen: _Seen) -> None:
        new: dict[_Limits, list[str]] = {}
        changed: dict[_Limits, list[str]] = {}
        for account in accounts:
            limits = _Limits(account.gpu_minutes, account.gpus)
            if account.name not in seen.limits:
                new.setdefault(limits, []).append(account.name)
            elif seen.limits[account.name] != limits or account.name in seen.decaying:
                changed.setdefault(limits, []).append(account.name)
        cores = self._cores_per_gpu() if any(account.gpus is not None for account in accounts) else 0
        # NoDecay: hours that were used stay used, whatever half-life the site's fair share has.
        for limits, names in new.items():
            for part in _batches(names):
                self._change("add", "qos", ",".join(part), "set", *limits.words(cores), "flags=NoDecay")
        for limits, names in changed.items():
            for part in _batches(names):
                self._change("modify", "qos", ",".join(part), "set", *limits.words(cores), "flags+=NoDecay")

    def _load(self, accounts: Sequence[Account], seen: _Seen, cluster_name: str) -> None:
        """Make what is missing from one file in one go; it adds and corrects descriptions, and removes
        nothing."""
        wanting = [account for account in accounts if _wants(account, seen)]
        for part in _batches(wanting):
            lines = [f"Cluster - '{cluster_name}'", "Parent - 'root'"]
            for account in part:
                text = _description(account)
                lines.append(
                    f"Account - '{account.name}':Description='{text}':Organization='{_ORGANIZATION}'"
                    f":DefaultQOS='{account.name}':QOS='{account.name}'"
                )
            for account in part:
                missing = sorted(account.logins - seen.logins.get(account.name, {}).keys())
                if missing:
                    lines.append(f"Parent - '{account.name}'")
                lines += [
                    f"User - '{login}':DefaultQOS='{account.name}':QOS='{account.name}'" for login in missing
                ]
            # Through standard input: a file of ours would not exist where a prefix (ssh, chroot) leads.
            self._change("load", "file=/dev/stdin", stdin="\n".join(lines) + "\n")

    def _save_shares(self, accounts: Sequence[Account], seen: _Seen, cluster_name: str) -> None:
        groups: dict[int, list[str]] = {}
        for account in accounts:
            if account.shares is not None and seen.shares.get(account.name) != account.shares:
                groups.setdefault(account.shares, []).append(account.name)
        for shares, names in groups.items():
            for part in _batches(names):
                where = (f"name={','.join(part)}", f"cluster={cluster_name}")
                self._change("modify", "account", "where", *where, "set", f"fairshare={shares}")

    def _correct_logins(self, accounts: Sequence[Account], seen: _Seen) -> None:
        for account in accounts:
            there = seen.logins.get(account.name, {})
            wrong = sorted(
                login for login in account.logins if there.get(login, account.name) != account.name
            )
            for part in _batches(wrong):
                where = f"account={account.name}"
                qos = (f"qos={account.name}", f"defaultqos={account.name}")
                self._change("modify", "user", "where", f"name={','.join(part)}", where, "set", *qos)

    def _remove_logins(self, accounts: Sequence[Account], seen: _Seen, cluster_name: str) -> InUse | None:
        leaving = {
            account.name: seen.logins.get(account.name, {}).keys() - account.logins for account in accounts
        }
        # A host that does not know a login shows its number or "nobody": that may be any of those who leave.
        busy = {
            (name, login)
            for name, who in self._jobs_in(leaving)
            for login in leaving[name]
            if who == login or who not in seen.logins.get(name, {})
        }
        in_use = self._in_use(busy)
        free = {name: {who for who in logins if (name, who) not in busy} for name, logins in leaving.items()}
        try:
            gone = self._settle_people(free, cluster_name)
        except InUse as error:
            in_use, gone = error, set()
        for name, logins in free.items():
            for part in _batches(sorted(logins - gone)):
                try:
                    self._remove_people(part, [name], cluster_name)
                except InUse as error:
                    in_use = error
        return in_use

    def _jobs_in(self, leaving: Mapping[str, Set[str]]) -> set[tuple[str, str]]:
        names = sorted(name for name, logins in leaving.items() if logins)
        return self._live(names) if names else set()

    def _in_use(self, busy: Set[tuple[str, str]]) -> InUse | None:
        if not busy:
            return None
        told = ", ".join(f"{who} in {name}" for name, who in sorted(busy)[:20])
        return InUse.said(self._tools.slug, f"jobs are active: {told}")

    def _settle_people(self, leaving: Mapping[str, Set[str]], cluster_name: str) -> set[str]:
        """Prepare people for leaving accounts: Slurm refuses while one of these is anybody's default account.

        Who keeps another account gets that as default; who keeps none is taken off the cluster and returned.
        """
        people = set().union(*leaving.values())
        if not people:
            return set()
        keeps: dict[str, set[str]] = {login: set() for login in people}
        leaves: dict[str, set[str]] = {login: set() for login in people}
        defaults: dict[str, str] = {}
        for login, default, account in self._show(
            "user", "user,defaultaccount,account", 3, "withassoc", f"cluster={cluster_name}"
        ):
            if login in people:
                defaults[login] = default
                (leaves if login in leaving.get(account, ()) else keeps)[login].add(account)
        moves: dict[str, list[str]] = {}
        for login, default in sorted(defaults.items()):
            if keeps[login] and default in leaves[login]:
                moves.setdefault(min(keeps[login]), []).append(login)
        for account, logins in moves.items():
            for part in _batches(logins):
                where = (f"name={','.join(part)}", f"cluster={cluster_name}")
                self._change("modify", "user", "where", *where, "set", f"defaultaccount={account}")
        gone = {login for login in defaults if not keeps[login]}
        self._take_off({login: leaves[login] for login in gone}, defaults, cluster_name)
        return gone

    def _take_off(
        self, leaves: Mapping[str, Set[str]], defaults: Mapping[str, str], cluster_name: str
    ) -> None:
        """Remove people from all the accounts they have here; 22.05 lets the default go only as the last."""
        groups: dict[str, list[str]] = {}
        for login in sorted(leaves):
            if len(leaves[login]) > 1:
                groups.setdefault(defaults[login], []).append(login)
        for default, logins in groups.items():
            accounts = sorted(set().union(*(leaves[login] for login in logins)) - {default})
            for part in _batches(logins):
                self._remove_people(part, accounts, cluster_name)
        for part in _batches(sorted(leaves)):
            last = sorted(set().union(*(leaves[login] for login in part)))
            self._remove_people(part, last, cluster_name)

    def _remove_people(self, logins: Sequence[str], accounts: Sequence[str], cluster_name: str) -> None:
        where = (f"name={','.join(logins)}", f"account={','.join(accounts)}", f"cluster={cluster_name}")
        self._change("remove", "user", "where", *where)

    def _verify(self, accounts: Sequence[Account], cluster_name: str) -> None:
        there = {account.name: account for account in self.read(cluster_name)}
        for account in accounts:
            found = there.get(account.name)
            if found is None:
                raise Refused.said(self._tools.slug, f"{account.name}: sacctmgr did not make it")
            if missing := sorted(account.logins - found.logins):
                raise Refused.said(
                    self._tools.slug, f"{account.name}: no association for {', '.join(missing)}"
                )
            if account.shares is not None and found.shares != account.shares:
                text = f"{found.shares} shares instead of {account.shares}"
                raise Refused.said(self._tools.slug, f"{account.name}: {text}")
            if (found.gpu_minutes, found.gpus) != (account.gpu_minutes, account.gpus):
                seen, asked = (found.gpu_minutes, found.gpus), (account.gpu_minutes, account.gpus)
                text = f"limits {seen} instead of {asked}"
                raise Refused.said(self._tools.slug, f"{account.name}: {text}")

    def remove(self, names: Sequence[str], cluster_name: str) -> None:
        """As Cluster.remove_accounts; raises InUse when one has jobs, after removing the others."""
        for name in names:
            require_account(name)
        if not names:
            return
        seen = self._see(cluster_name)
        present = [name for name in dict.fromkeys(names) if name in seen.descriptions]
        busy = self._live(present) if present else set()
        in_use = self._in_use(busy)
        used = {name for name, _ in busy}
        for part in _batches([name for name in present if name not in used]):
            in_use = self._remove_part(part, seen, cluster_name) or in_use
        left = self._see(cluster_name) if seen.descriptions else seen
        qos = [name for name in dict.fromkeys(names) if name in seen.limits and name not in left.descriptions]
        for part in _batches(qos):
            self._change("remove", "qos", "where", f"name={','.join(part)}")
        if in_use:
            raise in_use

    def _remove_part(self, names: list[str], seen: _Seen, cluster_name: str) -> InUse | None:
        """Remove accounts together, then without those that have jobs: sacctmgr removes all or none."""
        try:
            self._settle_people({name: set(seen.logins.get(name, {})) for name in names}, cluster_name)
            self._change("remove", "account", "where", f"name={','.join(names)}")
        except InUse as error:
            # It names the jobs that are in the way, though not all when they are many.
            busy = set(_BUSY.findall(str(error))) & set(names) or set(names[:1])
            rest = [name for name in names if name not in busy]
            if rest:
                self._remove_part(rest, seen, cluster_name)
            return error
        return None

    def _change(self, *argv: str, stdin: str = "") -> None:
        self._tools.run("sacctmgr", "-i", "-Q", *argv, stdin=stdin)


def _or_none(limit: int | None) -> int:
    return -1 if limit is None else limit


def _description(account: Account) -> str:
    return plain_text(account.description) or account.name


def _wants(account: Account, seen: _Seen) -> bool:
    return seen.descriptions.get(account.name) != _description(account) or bool(
        account.logins - seen.logins.get(account.name, {}).keys()
    )


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while part := list(islice(rest, BATCH)):
        yield part
