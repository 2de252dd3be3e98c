"""The books of each account: what was spent of it, and what hosts hold of the rest.

An account is a subject's money in one period; remaining = limit + credited - spent - leased.
`leased` is the sum of the hosts' shares. A charge out of a share lowers both the share and `leased`
by what it lowers `remaining` through `spent`: a host's promise becomes a fact.

Shares are only changed by those who have locked the books of their account, and books are locked in
the accounts' order: so hosts wait for each other, but never in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Table,
    and_,
    bindparam,
    collate,
    delete,
    func,
    select,
    tuple_,
    update,
)

from tokenhub.budgets import Account
from tokenhub.db.budget_tables import budget_ledgers, budget_shares, budgets
from tokenhub.store.statements import insert_into, insert_new, page_of
from tokenhub.store.turns import see_newest

ACCOUNTS_MAX = 500
"""Accounts in one statement."""

UNLIMITED_NANOUSD = 2**62
"""What an account without a budget has: one that was deleted a moment ago refuses nobody."""

_ACCOUNT = Account._fields
LEDGER_SUMS = ("spent_nanousd", "credited_nanousd", "leased_nanousd", "requests", "wanted_at")


@dataclass(frozen=True, slots=True)
class Ledger:
    """One account's books, in nano-dollars."""

    account: Account
    spent_nanousd: int = 0
    credited_nanousd: int = 0
    leased_nanousd: int = 0
    requests: int = 0
    wanted_at: int = 0

    def spendable(self, limit_nanousd: int) -> int:
        """What could still be spent if everything that hosts hold came back."""
        return limit_nanousd + self.credited_nanousd - self.spent_nanousd


@dataclass(slots=True)
class Charge:
    """What requests add to one account's books.

    Args:
        spent_nanousd: what they cost.
        unleased_nanousd: what they take off this host's share.
    """

    spent_nanousd: int = 0
    unleased_nanousd: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Leased:
    """What came of asking for money for several requests that wait for it.

    Args:
        served: how many of them, from the first, have got theirs.
        amounts: what each account was given.
        short: of the first that got nothing, which account lacks and its books and limit.
    """

    served: int
    amounts: tuple[int, ...]
    short: tuple[Ledger, int] | None = None
    elsewhere_nanousd: int = 0


def find_ledgers(connection: Connection, accounts: Sequence[Account]) -> dict[Account, Ledger]:
    """The books of these accounts; where nothing was ever spent, empty ones."""
    query = select(budget_ledgers).where(tuple_(*_columns(budget_ledgers)).in_(accounts))
    found = {account_of(row): ledger_from(row) for row in connection.execute(query).mappings()}
    return {account: found.get(account, Ledger(account)) for account in accounts}


def list_ledgers(
    connection: Connection,
    kind: str,
    period: str,
    page: tuple[int, int],
    *,
    subject_id: str = "",
    from_at: int = 0,
    to_at: int = 2**62,
) -> tuple[list[Ledger], int]:
    """A page of the books of one kind of subject, the newest periods first, then the dearest.

    Args:
        subject_id: of one subject alone.
        from_at, to_at: periods that began then; unix milliseconds, `to_at` not included.
    """
    columns = budget_ledgers.c
    query = select(budget_ledgers).where(
        columns.subject_kind == kind,
        columns.period == period,
        columns.start_at >= from_at,
        columns.start_at < to_at,
    )
    if subject_id:
        query = query.where(columns.subject_id == subject_id)
    query = query.order_by(
        columns.start_at.desc(), columns.spent_nanousd.desc(), columns.subject_id
    )
    rows, total = page_of(connection, query, *page)
    return list(map(ledger_from, rows)), total


def begin_leases(connection: Connection, accounts: Sequence[Account]) -> None:
    """Lock the books of these accounts, in order, before some leases. First of all in it."""
    see_newest(connection)
    _lock(connection, accounts)


def lease_money(
    connection: Connection,
    host_id: str,
    wants: Mapping[Account, int],
    amounts: Sequence[int],
) -> Leased:
    """Give a host what several requests that wait lack, as many of them as there is money for.

    Args:
        wants: the accounts that all of them draw on, in order, and what of it the host has.
        amounts: what each request needs in every account; the first is served first.
    """
    accounts = tuple(wants)
    books = _lock(connection, accounts)
    limits = _limits_of(connection, accounts)
    served, taken, short = 0, 0, None
    for amount in amounts:
        short = _first_short(books, limits, wants, taken + amount)
        if short is not None:
            break
        served, taken = served + 1, taken + amount
    granted = tuple(max(0, taken - wants[account]) for account in accounts)
    for account, amount in zip(accounts, granted, strict=True):
        if amount:
            _grant(connection, host_id, account, amount)
    return Leased(
        served,
        granted,
        short=None if short is None else (books[short], limits[short]),
        elsewhere_nanousd=0 if short is None else _held_elsewhere(connection, host_id, short),
    )


def give_back_money(connection: Connection, host_id: str, amounts: Mapping[Account, int]) -> None:
    """A host returns what it does not need (or, if negative, what it has spent beyond it).

    A transaction of its own. A share of which nothing is left stays: what it was spent on may not
    be entered yet.
    """
    see_newest(connection)
    for account in sorted(amounts):
        _lock(connection, (account,))
    _lower_shares(connection, host_id, amounts)


def release_share(connection: Connection, host_id: str, account: Account, granted: int) -> bool:
    """Take a whole share back, if it is still `granted` and nothing that it paid for can come."""
    _lock(connection, (account,))
    where = (*_share_is(host_id, account), budget_shares.c.granted_nanousd == granted)
    if not connection.execute(delete(budget_shares).where(*where)).rowcount:
        return False
    _lower_leased(connection, account, granted)
    return True


def release_host(connection: Connection, host_id: str) -> dict[Account, int]:
    """Take back all that a host holds which is gone; returns what that was.

    If it comes back, the bills of what it had must not lower what it has leased since.
    """
    released = {}
    for account in sorted(list_shares(connection, host_id)):
        _lock(connection, (account,))
        where = _share_is(host_id, account)
        share = select(budget_shares.c.granted_nanousd).where(*where)
        amount = released[account] = int(connection.scalar(share) or 0)
        total = budget_shares.c.released_nanousd + amount
        values = {"granted_nanousd": 0, "released_nanousd": total}
        connection.execute(update(budget_shares).where(*where).values(values))
        _lower_leased(connection, account, amount)
    return {account: amount for account, amount in released.items() if amount}


def list_shares(connection: Connection, host_id: str) -> dict[Account, tuple[int, int]]:
    """What a host holds, by account: how much, and when another host last asked for it."""
    joined = and_(*(budget_ledgers.c[name] == budget_shares.c[name] for name in _ACCOUNT))
    query = (
        select(budget_shares, func.coalesce(budget_ledgers.c.wanted_at, 0).label("wanted"))
        .join(budget_ledgers, joined, isouter=True)
        .where(budget_shares.c.host_id == host_id)
    )
    rows = connection.execute(query).mappings()
    return {account_of(row): (row["granted_nanousd"], row["wanted"]) for row in rows}


def list_holders(connection: Connection, account: Account) -> dict[str, int]:
    """Which hosts hold how much of an account."""
    query = select(budget_shares.c.host_id, budget_shares.c.granted_nanousd)
    where = [budget_shares.c[name] == value for name, value in account._asdict().items()]
    rows = connection.execute(query.where(*where).order_by(budget_shares.c.host_id))
    return {row.host_id: row.granted_nanousd for row in rows}


def ask_back(connection: Connection, accounts: Iterable[Account], at: int) -> None:
    """Ask all hosts to give back at once what they do not need of these accounts."""
    for account in sorted(accounts):
        connection.execute(
            update(budget_ledgers).where(*_is(budget_ledgers, account)).values(wanted_at=at)
        )


def charge_ledgers(connection: Connection, host_id: str, charges: Mapping[Account, Charge]) -> None:
    """Enter what requests cost; part of the transaction that stores them.

    What was leased is only lowered by what the share still had: one that was released by hand, for
    a host that was taken for dead, has been given to others since.
    """
    if not charges:
        return
    rows = [
        (*account, each.spent_nanousd, 0, 0, each.requests, 0)
        for account, each in sorted(charges.items())
    ]
    names = (*_ACCOUNT, *LEDGER_SUMS)
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    added = ", ".join(
        f"{name} = budget_ledgers.{name} + excluded.{name}"
        for name in ("spent_nanousd", "requests")
    )
    connection.exec_driver_sql(
        f"INSERT INTO budget_ledgers ({', '.join(names)}) "  # noqa: S608 - our own names
        f"VALUES ({', '.join([mark] * len(names))}) "
        f"ON CONFLICT ({', '.join(_ACCOUNT)}) DO UPDATE SET {added}",
        rows,
    )
    leased = {each: charge for each, charge in charges.items() if charge.unleased_nanousd}
    amounts = {account: charge.unleased_nanousd for account, charge in leased.items()}
    _lower_shares(connection, host_id, amounts)


def ledger_from(row: RowMapping) -> Ledger:
    """An account's books from their row."""
    return Ledger(account_of(row), *(row[name] for name in LEDGER_SUMS))


def _lock(connection: Connection, accounts: Sequence[Account]) -> dict[Account, Ledger]:
    """The books of these accounts, which nobody else changes until we are done."""
    order = _columns(budget_ledgers)
    if connection.dialect.name == "postgresql":  # as Python and SQLite sort, whatever its locale
        order = [*(collate(column, "C") for column in order[:3]), order[3]]
    query = select(budget_ledgers).where(tuple_(*_columns(budget_ledgers)).in_(accounts))
    query = query.order_by(*order).with_for_update()
    while True:
        rows = connection.execute(query).mappings()
        found = {account_of(row): ledger_from(row) for row in rows}
        if len(found) == len(accounts):
            return found
        for account in accounts:
            if account not in found:
                sums = dict.fromkeys(LEDGER_SUMS, 0)
                insert_new(connection, budget_ledgers, **account._asdict(), **sums)


def _first_short(
    books: Mapping[Account, Ledger],
    limits: Mapping[Account, int],
    wants: Mapping[Account, int],
    amount: int,
) -> Account | None:
    """The first account that cannot give a host as much as it would need in all."""
    for account, ledger in books.items():
        remaining = ledger.spendable(limits[account]) - ledger.leased_nanousd
        if amount - wants[account] > max(0, remaining):
            return account
    return None


def _limits_of(connection: Connection, accounts: Sequence[Account]) -> dict[Account, int]:
    keys = [account[:3] for account in accounts]
    names = [budgets.c[name] for name in _ACCOUNT[:3]]
    query = select(*names, budgets.c.limit_nanousd).where(tuple_(*names).in_(keys))
    found = {tuple(row[:3]): row[3] for row in connection.execute(query)}
    return {account: found.get(account[:3], UNLIMITED_NANOUSD) for account in accounts}


def _grant(connection: Connection, host_id: str, account: Account, amount: int) -> None:
    columns = budget_ledgers.c
    connection.execute(
        update(budget_ledgers)
        .where(*_is(budget_ledgers, account))
        .values(leased_nanousd=columns.leased_nanousd + amount)
    )
    statement = insert_into(connection, budget_shares).values(
        host_id=host_id, **account._asdict(), granted_nanousd=amount, released_nanousd=0
    )
    more = {"granted_nanousd": budget_shares.c.granted_nanousd + amount}
    key = ["host_id", *_ACCOUNT]
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=more))


def _held_elsewhere(connection: Connection, host_id: str, account: Account) -> int:
    held = list_holders(connection, account)
    return sum(amount for holder, amount in held.items() if holder != host_id)


def _lower_leased(connection: Connection, account: Account, amount: int) -> None:
    lowered = budget_ledgers.c.leased_nanousd - amount
    statement = update(budget_ledgers).where(*_is(budget_ledgers, account))
    connection.execute(statement.values(leased_nanousd=lowered))


def _lower_shares(connection: Connection, host_id: str, amounts: Mapping[Account, int]) -> None:
    """Lower a host's shares, those that it has, and with each what is leased of its account.

    Not by what was released by hand: others have it.
    """
    changed = []
    accounts = list(amounts)
    for start in range(0, len(accounts), ACCOUNTS_MAX):
        some = accounts[start : start + ACCOUNTS_MAX]
        query = select(budget_shares).where(budget_shares.c.host_id == host_id)
        query = query.where(tuple_(*_columns(budget_shares)).in_(some))
        for row in connection.execute(query).mappings():
            account = account_of(row)
            values = {f"its_{name}": value for name, value in account._asdict().items()}
            released = max(0, min(row["released_nanousd"], amounts[account]))
            changed.append({**values, "amount": amounts[account] - released, "released": released})
    if not changed:
        return
    if any(each["released"] for each in changed):
        _lower_released(connection, host_id, changed)
    for table, column, also in (
        (budget_shares, budget_shares.c.granted_nanousd, [budget_shares.c.host_id == host_id]),
        (budget_ledgers, budget_ledgers.c.leased_nanousd, []),
    ):
        where = [table.c[name] == bindparam(f"its_{name}") for name in _ACCOUNT]
        statement = update(table).where(*also, *where)
        connection.execute(statement.values({column: column - bindparam("amount")}), changed)


def _lower_released(connection: Connection, host_id: str, changed: list[dict[str, Any]]) -> None:
    column = budget_shares.c.released_nanousd
    where = [budget_shares.c[name] == bindparam(f"its_{name}") for name in _ACCOUNT]
    statement = update(budget_shares).where(budget_shares.c.host_id == host_id, *where)
    connection.execute(statement.values({column: column - bindparam("released")}), changed)


def _columns(table: Table) -> list[Any]:
    return [table.c[name] for name in _ACCOUNT]


def _is(table: Table, account: Account) -> list[Any]:
    return [table.c[name] == value for name, value in account._asdict().items()]


def _share_is(host_id: str, account: Account) -> list[Any]:
    return [budget_shares.c.host_id == host_id, *_is(budget_shares, account)]


def account_of(row: RowMapping) -> Account:
    return Account(*(row[name] for name in _ACCOUNT))
