"""Tokens for tests: a key pair a tenant, and tokens of any kind. tools/mint-token makes them."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import time

import psycopg
import pytest
from database import Database, rows, value
from psycopg.types.json import Jsonb
from server import ROOT

_loader = importlib.machinery.SourceFileLoader("mint_token", str(ROOT / "tools" / "mint-token"))
mint_token = importlib.util.module_from_spec(importlib.util.spec_from_loader("mint_token", _loader))
_loader.exec_module(mint_token)

ISSUER = "https://id.example.org"
#: What only the tenant's own events say.
MARKS = {"acme": "of-acme-4711", "bank": "of-bank-0815"}
#: crates/core/src/token.rs
LEEWAY = 30


class Bank:
    """A database with tenants, each with a key, and one login that needs a token and may work in all."""

    def __init__(self, database: Database, role: str = "web", tenants: tuple[str, ...] = ("acme", "bank")):
        self.database, self.role = database, role
        self.keys = {tenant: mint_token.new_key() for tenant in tenants}
        database.role(role)
        with database.connect() as session:
            session.execute(f'revoke temp on database "{database.name}" from public')
            session.execute("set eventstream.tenant = 'default'")
            for tenant, key in self.keys.items():
                session.execute("select es_create_tenant(%s)", (tenant,))
                session.execute("select es_add_token_key('k1', %s, %s, %s)", (mint_token.public(key), tenant, ISSUER))
                for privilege in ("read", "append", "command", "consume", "manage", "audit"):
                    session.execute("select es_grant(%s, %s, %s)", (role, privilege, tenant))
            session.execute("select es_require_token(%s)", (role,))
            self.audience = value(session, "select log_id || '/' || incarnation from es_log_info()")

    def token(self, tenant: str = "acme", lifetime: int = 300, key=None, kid: str = "k1", **claims) -> str:
        wanted = {"iss": ISSUER, "aud": self.audience, "tenant": tenant, "sub": "clerk-7"} | claims
        return mint_token.mint(key or self.keys[tenant], kid, lifetime, **wanted)

    def dying(self, tenant: str = "acme", seconds: int = 2, **claims) -> str:
        """One that counts for so many seconds more."""
        now = int(time.time())
        return self.token(tenant, iat=now - 60, exp=now - LEEWAY + seconds, **claims)

    def connect(self, **options) -> psycopg.Connection:
        return self.database.connect(user=self.role, **options)

    def admin(self, tenant: str = "acme") -> psycopg.Connection:
        session = self.database.connect()
        session.execute("set eventstream.tenant = '{}'".format(tenant))
        return session


def keep_out(session: psycopg.Connection) -> None:
    """Of all other databases of the server, whoever is no superuser."""
    for (statement,) in rows(session, "select format('revoke connect on database %I from public', datname) from pg_database where datname <> current_database()"):
        session.execute(statement)


def use(session: psycopg.Connection, token: str) -> str:
    return value(session, "select es_use_token(%s)", token)


def filled(database: Database) -> Bank:
    """With three events in each tenant."""
    made = Bank(database)
    for tenant, mark in MARKS.items():
        with made.connect() as session, session.transaction():
            assert use(session, made.token(tenant)) == tenant
            for n in range(1, 4):
                session.execute("select es_append('account-1', 'Opened', %s)", (Jsonb({"mark": mark, "n": n}),))
    return made


@contextlib.contextmanager
def refused(*states: str):
    with pytest.raises(psycopg.Error) as raised:
        yield raised
    assert raised.value.sqlstate in states, raised.value


def marks(session: psycopg.Connection, statement: str = "select payload ->> 'mark' from eventstream.events") -> set[str]:
    return {mark for (mark,) in rows(session, statement)}
