"""Periods: what is divided, by what, the proposals, and what was granted; all of it kept as it was

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from allocator.models.base import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FROZEN = (
    "name",
    "cluster_id",
    "gpu_type",
    "starts_at",
    "ends_at",
    "calendar",
    "maintenance",
    "reserve",
    "capacity",
    "details",
    "policy_version",
    "opened_by_id",
    "opened_at",
    "collected_at",
)
APPEND_ONLY = ("proposal_shares", "adjustments", "grants", "grant_changes", "credits", "policy_versions")
INPUTS = ("period_claims", "period_plans", "period_pools")
RESULTS = ("proposal_shares", "adjustments")
# What SQLite's INSERT OR REPLACE would overwrite: no trigger on DELETE fires for it.
KEYS = {
    "periods": ("id", "name"),
    "proposals": ("id", "period_id, number"),
    "proposal_shares": ("id", "proposal_id, claim_id"),
    "adjustments": ("id", "proposal_id, claim_id"),
    "grants": ("id", "period_id, quota_id"),
    "grant_changes": ("id",),
    "credits": ("id",),
    "policy_versions": ("id", "version", "sha256"),
}

SQLITE_OVERLAP = """
CREATE TRIGGER periods_overlap_{name} BEFORE {event} ON periods
WHEN NEW.state <> 'discarded' AND EXISTS (
    SELECT 1 FROM periods AS other
    WHERE other.cluster_id = NEW.cluster_id AND other.gpu_type = NEW.gpu_type AND other.id IS NOT NEW.id
      AND other.state <> 'discarded'
      AND other.ends_at > NEW.starts_at AND other.starts_at < NEW.ends_at
)
BEGIN SELECT RAISE(ABORT, 'periods_no_overlap'); END
"""

SQLITE_REFUSE = """
CREATE TRIGGER {table}_no_{name} BEFORE {event} ON {table} {when}
BEGIN SELECT RAISE(ABORT, '{message}'); END
"""

POSTGRESQL = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$;

CREATE FUNCTION keep_period() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE steps text[] := ARRAY['state', 'version', 'published_at', 'published_by_id', 'closed_at'];
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state = 'draft' THEN RETURN OLD; END IF;
        RAISE EXCEPTION 'a period is kept as it was';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.state = 'draft' THEN RETURN NEW; END IF;
        RAISE EXCEPTION 'a period is kept as it was';
    END IF;
    IF OLD.state <> 'draft' AND (NEW.state = 'draft' OR to_jsonb(NEW) - steps <> to_jsonb(OLD) - steps) THEN
        RAISE EXCEPTION 'a period is kept as it was';
    END IF;
    steps := ARRAY['state', 'version', 'closed_at'];
    IF OLD.state IN ('published', 'closed', 'discarded') AND NOT (
        OLD.state = 'published' AND NEW.state = 'closed' AND to_jsonb(NEW) - steps = to_jsonb(OLD) - steps
    ) THEN
        RAISE EXCEPTION 'a period is kept as it was';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION keep_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM periods WHERE state <> 'draft'
          AND (TG_OP <> 'INSERT' AND id = OLD.period_id OR TG_OP <> 'DELETE' AND id = NEW.period_id)
    ) THEN
        RAISE EXCEPTION 'the inputs of a period are kept as they were';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION keep_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.state = 'kept' AND NEW.state = 'published'
        AND to_jsonb(NEW) - 'state'::text = to_jsonb(OLD) - 'state'::text THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'a proposal is kept as it was';
END $$;

CREATE FUNCTION keep_results() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM proposals WHERE id = NEW.proposal_id AND state = 'published') THEN
        RAISE EXCEPTION 'a proposal is kept as it was';
    END IF;
    RETURN NEW;
END $$;
"""
FUNCTIONS = ("refuse_change", "keep_period", "keep_inputs", "keep_proposal", "keep_results")


def upgrade() -> None:
    _tables()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _guard_sqlite() -> None:
    for event in ("INSERT", "UPDATE"):
        op.execute(SQLITE_OVERLAP.format(name=event.lower(), event=event))
    for table in APPEND_ONLY:
        for event in ("UPDATE", "DELETE"):
            _refuse(table, event, "", f"{table} are append-only")
    changed = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in FROZEN)
    published = "NEW.published_at IS NOT OLD.published_at OR NEW.published_by_id IS NOT OLD.published_by_id"
    closing = "OLD.state = 'published' AND NEW.state = 'closed'"
    over = "OLD.state IN ('published', 'closed', 'discarded')"
    kept = "a period is kept as it was"
    _refuse(
        "periods",
        "UPDATE",
        f"WHEN (OLD.state <> 'draft' AND (NEW.state = 'draft' OR {changed}))"
        f" OR ({over} AND (NOT ({closing}) OR {published}))",
        kept,
    )
    _refuse("periods", "INSERT", "WHEN NEW.state <> 'draft'", kept)
    for table, keys in KEYS.items():
        same = " OR ".join(f"({key}) = ({_new(key)})" for key in keys)
        again = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 - names from above
        _refuse(table, "INSERT", again, f"{table} are append-only", "again")
    _refuse("periods", "DELETE", "WHEN OLD.state <> 'draft'", kept)
    inputs = "WHEN EXISTS (SELECT 1 FROM periods WHERE state <> 'draft' AND {0})"
    for table in INPUTS:
        for event, which in (
            ("INSERT", "id = NEW.period_id"),
            ("UPDATE", "id IN (OLD.period_id, NEW.period_id)"),
            ("DELETE", "id = OLD.period_id"),
        ):
            _refuse(table, event, inputs.format(which), "the inputs of a period are kept as they were")
    same = " AND ".join(
        f"NEW.{column} IS OLD.{column}"
        for column in (
            "id",
            "period_id",
            "number",
            "kind",
            "name",
            "based_on_id",
            "capacity",
            "scenario",
            "pools",
            "created_by_id",
            "created_at",
        )
    )
    publishing = f"OLD.state = 'kept' AND NEW.state = 'published' AND {same}"
    _refuse("proposals", "UPDATE", f"WHEN NOT ({publishing})", "a proposal is kept as it was")
    _refuse("proposals", "DELETE", "", "a proposal is kept as it was")
    late = "WHEN (SELECT state FROM proposals WHERE id = NEW.proposal_id) = 'published'"
    for table in RESULTS:
        _refuse(table, "INSERT", late, "a proposal is kept as it was")


def _new(key: str) -> str:
    return ", ".join(f"NEW.{column}" for column in key.split(", "))


def _refuse(table: str, event: str, when: str, message: str, name: str = "") -> None:
    name = name or event.lower()
    op.execute(SQLITE_REFUSE.format(table=table, name=name, event=event, when=when, message=message))


def _guard_postgresql() -> None:
    op.execute(POSTGRESQL)
    op.execute(
        "ALTER TABLE periods ADD CONSTRAINT periods_no_overlap EXCLUDE USING gist ("
        "cluster_id WITH =, gpu_type WITH =, tstzrange(starts_at, ends_at) WITH &&) "
        "WHERE (state <> 'discarded')"
    )
    for table in APPEND_ONLY:
        _guard(table, "append_only", "UPDATE OR DELETE", "refuse_change")
    for table in (*APPEND_ONLY, *INPUTS, "periods", "proposals"):
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for table in INPUTS:
        _guard(table, "kept", "INSERT OR UPDATE OR DELETE", "keep_inputs")
    for table in RESULTS:
        _guard(table, "kept", "INSERT", "keep_results")
    _guard("periods", "kept", "INSERT OR UPDATE OR DELETE", "keep_period")
    _guard("proposals", "kept", "UPDATE OR DELETE", "keep_proposal")


def _guard(table: str, name: str, events: str, function: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_{name} BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
    )


def _tables() -> None:
    op.create_table(
        "policy_versions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.String(length=80), nullable=False),
        sa.Column("effective", sa.Date(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_policy_versions_sha256_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_versions")),
        sa.UniqueConstraint("sha256", name=op.f("uq_policy_versions_sha256")),
        sa.UniqueConstraint("version", name=op.f("uq_policy_versions_version")),
    )
    op.create_table(
        "periods",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("cluster_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("gpu_type", sa.String(length=40), nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("calendar", sa.BigInteger(), nullable=False),
        sa.Column("maintenance", sa.BigInteger(), nullable=False),
        sa.Column("reserve", sa.BigInteger(), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column(
            "details",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            nullable=False,
        ),
        sa.Column("policy_version", sa.String(length=80), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "draft",
                "proposed",
                "published",
                "closed",
                "discarded",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("opened_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("collected_at", UtcDateTime(), nullable=True),
        sa.Column("published_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('published', 'closed')) = (published_at IS NOT NULL)",
            name=op.f("ck_periods_published_when"),
        ),
        sa.CheckConstraint(
            "calendar >= 0 AND maintenance >= 0 AND reserve >= 0",
            name=op.f("ck_periods_amounts_not_negative"),
        ),
        sa.CheckConstraint(
            "capacity = calendar - maintenance - reserve", name=op.f("ck_periods_capacity_adds_up")
        ),
        sa.CheckConstraint("capacity >= 0", name=op.f("ck_periods_capacity_not_negative")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_periods_dates_in_order")),
        sa.ForeignKeyConstraint(["cluster_id"], ["clusters.id"], name=op.f("fk_periods_cluster_id_clusters")),
        sa.ForeignKeyConstraint(["opened_by_id"], ["people.id"], name=op.f("fk_periods_opened_by_id_people")),
        sa.ForeignKeyConstraint(
            ["published_by_id"], ["people.id"], name=op.f("fk_periods_published_by_id_people")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_periods")),
        sa.UniqueConstraint("name", name=op.f("uq_periods_name")),
    )
    op.create_index(
        op.f("ix_periods_cluster_id_gpu_type_starts_at"),
        "periods",
        ["cluster_id", "gpu_type", "starts_at"],
        unique=False,
    )
    op.create_index(op.f("ix_periods_opened_by_id"), "periods", ["opened_by_id"], unique=False)
    op.create_index(op.f("ix_periods_published_by_id"), "periods", ["published_by_id"], unique=False)
    op.create_index(op.f("ix_periods_state_starts_at"), "periods", ["state", "starts_at"], unique=False)
    op.create_table(
        "credits",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("organisation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("person_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("pool", sa.String(length=40), nullable=False),
        sa.Column(
            "cause",
            sa.Enum(
                "division",
                "returned",
                "later",
                name="cause",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("requested", sa.BigInteger(), nullable=False),
        sa.Column("served", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.String(length=200), nullable=True),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(cause = 'division') = (weight IS NOT NULL)", name=op.f("ck_credits_weight_of_division")
        ),
        sa.CheckConstraint("(cause = 'returned') = (served < 0)", name=op.f("ck_credits_sign_by_cause")),
        sa.CheckConstraint(
            "(organisation_id IS NULL) <> (person_id IS NULL)", name=op.f("ck_credits_one_holder")
        ),
        sa.CheckConstraint("requested >= 0", name=op.f("ck_credits_requested_not_negative")),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name=op.f("fk_credits_organisation_id_organisations")
        ),
        sa.ForeignKeyConstraint(["period_id"], ["periods.id"], name=op.f("fk_credits_period_id_periods")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_credits_person_id_people")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credits")),
    )
    op.create_index(op.f("ix_credits_organisation_id"), "credits", ["organisation_id"], unique=False)
    op.create_index(op.f("ix_credits_period_id_pool"), "credits", ["period_id", "pool"], unique=False)
    op.create_index(op.f("ix_credits_person_id"), "credits", ["person_id"], unique=False)
    op.create_table(
        "period_pools",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("slug", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("guarantee", sa.BigInteger(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("weight", sa.String(length=200), nullable=False),
        sa.CheckConstraint(
            "cap IS NULL OR cap >= guarantee", name=op.f("ck_period_pools_cap_above_guarantee")
        ),
        sa.CheckConstraint("guarantee >= 0", name=op.f("ck_period_pools_guarantee_not_negative")),
        sa.ForeignKeyConstraint(
            ["period_id"], ["periods.id"], name=op.f("fk_period_pools_period_id_periods"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_period_pools")),
        sa.UniqueConstraint("period_id", "slug", name=op.f("uq_period_pools_period_id_slug")),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("proposal", "what_if", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column(
            "state",
            sa.Enum("kept", "published", name="state", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("based_on_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column(
            "scenario",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "pools",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            nullable=False,
        ),
        sa.Column("created_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("kind = 'proposal' OR name <> ''", name=op.f("ck_proposals_what_ifs_are_named")),
        sa.CheckConstraint(
            "kind = 'proposal' OR state = 'kept'", name=op.f("ck_proposals_what_ifs_are_not_published")
        ),
        sa.ForeignKeyConstraint(
            ["based_on_id"], ["proposals.id"], name=op.f("fk_proposals_based_on_id_proposals")
        ),
        sa.ForeignKeyConstraint(
            ["created_by_id"], ["people.id"], name=op.f("fk_proposals_created_by_id_people")
        ),
        sa.ForeignKeyConstraint(["period_id"], ["periods.id"], name=op.f("fk_proposals_period_id_periods")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
        sa.UniqueConstraint("period_id", "number", name=op.f("uq_proposals_period_id_number")),
    )
    op.create_index(op.f("ix_proposals_based_on_id"), "proposals", ["based_on_id"], unique=False)
    op.create_index(op.f("ix_proposals_created_by_id"), "proposals", ["created_by_id"], unique=False)
    op.create_index(
        "uq_proposals_published",
        "proposals",
        ["period_id"],
        unique=True,
        sqlite_where=sa.text("state = 'published'"),
        postgresql_where=sa.text("state = 'published'"),
    )
    op.create_table(
        "period_claims",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("quota_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("reference", sa.String(length=32), nullable=False),
        sa.Column("category", sa.String(length=40), nullable=False),
        sa.Column("pool", sa.String(length=40), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=True),
        sa.Column("pace", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.BigInteger(), nullable=False),
        sa.Column("minimum", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.String(length=200), nullable=False),
        sa.Column(
            "factors",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "rank",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "minimum >= 0 AND minimum <= request", name=op.f("ck_period_claims_minimum_in_request")
        ),
        sa.CheckConstraint(
            "request >= 0 AND remaining >= 0 AND pace >= 0",
            name=op.f("ck_period_claims_amounts_not_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["period_id"], ["periods.id"], name=op.f("fk_period_claims_period_id_periods"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["quota_id"], ["quotas.id"], name=op.f("fk_period_claims_quota_id_quotas")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_period_claims")),
        sa.UniqueConstraint("period_id", "quota_id", name=op.f("uq_period_claims_period_id_quota_id")),
        sa.UniqueConstraint("period_id", "reference", name=op.f("uq_period_claims_period_id_reference")),
    )
    op.create_index(op.f("ix_period_claims_quota_id"), "period_claims", ["quota_id"], unique=False)
    op.create_table(
        "period_plans",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("quota_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("request", sa.BigInteger(), nullable=False),
        sa.Column("minimum", sa.BigInteger(), nullable=False),
        sa.Column("uses_from", UtcDateTime(), nullable=True),
        sa.Column("uses_until", UtcDateTime(), nullable=True),
        sa.Column("set_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("set_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "request >= 0 AND minimum >= 0 AND minimum <= request",
            name=op.f("ck_period_plans_minimum_in_request"),
        ),
        sa.CheckConstraint("uses_from < uses_until", name=op.f("ck_period_plans_days_in_order")),
        sa.ForeignKeyConstraint(
            ["period_id"], ["periods.id"], name=op.f("fk_period_plans_period_id_periods")
        ),
        sa.ForeignKeyConstraint(["quota_id"], ["quotas.id"], name=op.f("fk_period_plans_quota_id_quotas")),
        sa.ForeignKeyConstraint(["set_by_id"], ["people.id"], name=op.f("fk_period_plans_set_by_id_people")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_period_plans")),
        sa.UniqueConstraint("period_id", "quota_id", name=op.f("uq_period_plans_period_id_quota_id")),
    )
    op.create_index(op.f("ix_period_plans_quota_id"), "period_plans", ["quota_id"], unique=False)
    op.create_index(op.f("ix_period_plans_set_by_id"), "period_plans", ["set_by_id"], unique=False)
    op.create_table(
        "adjustments",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("proposal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("claim_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("adjusted_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("adjusted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_adjustments_reason_given")),
        sa.CheckConstraint("before >= 0 AND after >= 0", name=op.f("ck_adjustments_amounts_not_negative")),
        sa.ForeignKeyConstraint(
            ["adjusted_by_id"], ["people.id"], name=op.f("fk_adjustments_adjusted_by_id_people")
        ),
        sa.ForeignKeyConstraint(
            ["claim_id"], ["period_claims.id"], name=op.f("fk_adjustments_claim_id_period_claims")
        ),
        sa.ForeignKeyConstraint(
            ["proposal_id"], ["proposals.id"], name=op.f("fk_adjustments_proposal_id_proposals")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adjustments")),
        sa.UniqueConstraint("proposal_id", "claim_id", name=op.f("uq_adjustments_proposal_id_claim_id")),
    )
    op.create_index(op.f("ix_adjustments_adjusted_by_id"), "adjustments", ["adjusted_by_id"], unique=False)
    op.create_index(op.f("ix_adjustments_claim_id"), "adjustments", ["claim_id"], unique=False)
    op.create_table(
        "grants",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("period_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("quota_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("claim_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("gpu_seconds", sa.BigInteger(), nullable=False),
        sa.Column("granted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("gpu_seconds >= 0", name=op.f("ck_grants_gpu_seconds_not_negative")),
        sa.CheckConstraint(
            "claim_id IS NOT NULL OR gpu_seconds = 0", name=op.f("ck_grants_given_to_a_claim")
        ),
        sa.ForeignKeyConstraint(
            ["claim_id"], ["period_claims.id"], name=op.f("fk_grants_claim_id_period_claims")
        ),
        sa.ForeignKeyConstraint(["period_id"], ["periods.id"], name=op.f("fk_grants_period_id_periods")),
        sa.ForeignKeyConstraint(["quota_id"], ["quotas.id"], name=op.f("fk_grants_quota_id_quotas")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("period_id", "quota_id", name=op.f("uq_grants_period_id_quota_id")),
    )
    op.create_index(op.f("ix_grants_claim_id"), "grants", ["claim_id"], unique=False)
    op.create_index(op.f("ix_grants_quota_id"), "grants", ["quota_id"], unique=False)
    op.create_table(
        "proposal_shares",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("proposal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("claim_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("gpu_hours", sa.BigInteger(), nullable=False),
        sa.Column("is_fixed", sa.Boolean(), nullable=False),
        sa.Column("is_set_aside", sa.Boolean(), nullable=False),
        sa.CheckConstraint("gpu_hours >= 0", name=op.f("ck_proposal_shares_gpu_hours_not_negative")),
        sa.ForeignKeyConstraint(
            ["claim_id"], ["period_claims.id"], name=op.f("fk_proposal_shares_claim_id_period_claims")
        ),
        sa.ForeignKeyConstraint(
            ["proposal_id"], ["proposals.id"], name=op.f("fk_proposal_shares_proposal_id_proposals")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal_shares")),
        sa.UniqueConstraint("proposal_id", "claim_id", name=op.f("uq_proposal_shares_proposal_id_claim_id")),
    )
    op.create_index(op.f("ix_proposal_shares_claim_id"), "proposal_shares", ["claim_id"], unique=False)
    op.create_table(
        "grant_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("grant_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "returned",
                "reclaimed",
                "redivided",
                "reserve",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("gpu_seconds", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(kind IN ('returned', 'reclaimed')) = (gpu_seconds < 0) AND gpu_seconds <> 0",
            name=op.f("ck_grant_changes_sign_by_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["changed_by_id"], ["people.id"], name=op.f("fk_grant_changes_changed_by_id_people")
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_changes_grant_id_grants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grant_changes")),
    )
    op.create_index(op.f("ix_grant_changes_changed_by_id"), "grant_changes", ["changed_by_id"], unique=False)
    op.create_index(op.f("ix_grant_changes_grant_id"), "grant_changes", ["grant_id"], unique=False)
    op.create_table(
        "reclaims",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("grant_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "warned",
                "proposed",
                "confirmed",
                "dropped",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("take_back", sa.BigInteger(), nullable=False),
        sa.Column("warned_at", UtcDateTime(), nullable=False),
        sa.Column("answer_until", UtcDateTime(), nullable=False),
        sa.Column("decided_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("decided_at", UtcDateTime(), nullable=True),
        sa.Column("policy_version", sa.String(length=80), nullable=False),
        sa.CheckConstraint(
            "planned > 0 AND used >= 0 AND take_back > 0", name=op.f("ck_reclaims_amounts_make_sense")
        ),
        sa.CheckConstraint("warned_at < answer_until", name=op.f("ck_reclaims_time_to_answer")),
        sa.ForeignKeyConstraint(
            ["decided_by_id"], ["people.id"], name=op.f("fk_reclaims_decided_by_id_people")
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_reclaims_grant_id_grants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reclaims")),
    )
    op.create_index(op.f("ix_reclaims_decided_by_id"), "reclaims", ["decided_by_id"], unique=False)
    op.create_index(op.f("ix_reclaims_grant_id"), "reclaims", ["grant_id"], unique=False)
    op.create_index(
        op.f("ix_reclaims_state_answer_until"), "reclaims", ["state", "answer_until"], unique=False
    )
    op.create_index(
        "uq_reclaims_open",
        "reclaims",
        ["grant_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('warned', 'proposed')"),
        postgresql_where=sa.text("state IN ('warned', 'proposed')"),
    )
    op.add_column(
        "decisions", sa.Column("merit_band", sa.String(length=40), server_default="ordinary", nullable=False)
    )
    op.add_column("decisions", sa.Column("merit_reason", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    # indexes and triggers go with their tables
    op.drop_column("decisions", "merit_reason")
    op.drop_column("decisions", "merit_band")
    op.drop_table("reclaims")
    op.drop_table("grant_changes")
    op.drop_table("proposal_shares")
    op.drop_table("grants")
    op.drop_table("adjustments")
    op.drop_table("period_plans")
    op.drop_table("period_claims")
    op.drop_table("proposals")
    op.drop_table("period_pools")
    op.drop_table("credits")
    op.drop_table("periods")
    op.drop_table("policy_versions")
    if op.get_bind().dialect.name != "sqlite":
        for function in FUNCTIONS:
            op.execute(f"DROP FUNCTION {function}")
