#!/usr/bin/env python3
"""Shows one login that works in two tenants, by token, and what becomes of a statement that tries the other's ledger. On a running server that preloads eventstream, in a database with the extension.
examples/demo.sh calls it.

Environment: PGHOST, PGPORT, PGUSER (a superuser), PGDATABASE as for psql. It runs with a Python that has psycopg and cryptography, as tools/venv makes one.
Exit status: 0 only if each was shown its own ledger, and whatever else was tried was refused.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import sys

import psycopg

ROOT = pathlib.Path(__file__).resolve().parents[2]
_loader = importlib.machinery.SourceFileLoader("mint_token", str(ROOT / "tools" / "mint-token"))
mint_token = importlib.util.module_from_spec(importlib.util.spec_from_loader("mint_token", _loader))
_loader.exec_module(mint_token)

ISSUER = "https://id.example.org"
TENANTS = {"bakery": "clerk-ada", "brewery": "clerk-ben"}
ROLE = "ledger_web"


def set_up(owner: psycopg.Connection) -> str:
    """Two tenants with a key each, and one login that needs a token; whom tokens are for."""
    (database,) = owner.execute("select quote_ident(current_database())").fetchone()
    if owner.execute("select from pg_roles where rolname = %s", (ROLE,)).fetchone() is None:
        owner.execute(f"create role {ROLE} login")
    owner.execute(f"revoke temp on database {database} from public")
    owner.execute("set eventstream.tenant = 'default'")
    owner.execute("select es_require_token(%s)", (ROLE,))
    for privilege in ("read", "append"):
        owner.execute("select es_grant(%s, %s, tenant => '*')", (ROLE, privilege))
    # There will be several tenants: whoever names none goes on in the first.
    owner.execute(f"alter database {database} set eventstream.tenant = 'default'")
    for tenant in TENANTS:
        owner.execute("select es_create_tenant(%s)", (tenant,))
        owner.execute("select es_add_token_key('demo', %s, %s, %s)", (mint_token.public(mint_token.kept_key(tenant)), tenant, ISSUER))
    return owner.execute("select log_id || '/' || incarnation from es_log_info()").fetchone()[0]


def asked(session: psycopg.Connection, token: str | None, *statements: str) -> list[tuple]:
    """The statements in one transaction with the token, told as they go; the rows of the last."""
    with session.transaction():
        if token is not None:
            print(f"select es_use_token($1);  -- {len(token)} bytes, bound as a parameter")
            session.execute("select es_use_token(%s)", (token,))
        for statement in statements:
            print(f"{statement};")
            found = session.execute(statement).fetchall()
    for row in found:
        print("   ", " | ".join(map(str, row)))
    return found


def refused(session: psycopg.Connection, sqlstate: str, token: str | None, *statements: str) -> None:
    try:
        asked(session, token, *statements)
    except psycopg.Error as error:
        print(f"    ERROR {error.sqlstate}: {error.diag.message_primary}")
        if error.sqlstate == sqlstate:
            return
    sys.exit(f"tokens: {sqlstate} was expected")


def main() -> None:
    with psycopg.connect(autocommit=True) as owner:
        audience = set_up(owner)

    def token(tenant: str, key: str | None = None) -> str:
        return mint_token.mint(mint_token.kept_key(key or tenant), "demo", iss=ISSUER, aud=audience, tenant=tenant, sub=TENANTS[tenant])

    read = "select stream, payload ->> 'amount' as amount, metadata ->> 'actor' as actor, tenant from eventstream.events"
    with psycopg.connect(user=ROLE, autocommit=True) as session:
        print(f"-- == 1. Role {ROLE}, which serves both: without a token nothing is there, whatever the session sets ==")
        session.execute("set eventstream.tenant = 'brewery'")
        refused(session, "ES042", None, read)
        print("-- == 2. Each has its own ledger, and acts under its own name ==")
        for tenant, amount in (("bakery", "12.50"), ("brewery", "990.00")):
            booked = f"""select es_append('account-cash', 'AccountCredited', '{{"amount": {amount}}}')"""
            if asked(session, token(tenant), booked, read) != [("account-cash", amount, TENANTS[tenant], tenant)]:
                sys.exit("tokens: not the tenant's own ledger")
        print("-- == 3. The bakery's statement tries the brewery's ==")
        refused(session, "ES044", token("bakery"), "select es_use_tenant('brewery')")
        if asked(session, token("bakery"), "select set_config('eventstream.tenant', 'brewery', true)", read) != [("account-cash", "12.50", "clerk-ada", "bakery")]:
            sys.exit("tokens: a setting led to another tenant")
        refused(session, "ES043", token("brewery", key="bakery"), read)


if __name__ == "__main__":
    main()
