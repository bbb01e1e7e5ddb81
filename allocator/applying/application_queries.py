"""Reading applications: what can be asked for, lists, the operator's queue, what happened, who is behind."""

from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, func, not_, or_, select
from sqlalchemy.orm import Session, joinedload, raiseload, selectinload

from allocator import history
from allocator.actors import Actor
from allocator.applying.application_checks import Offer
from allocator.authorization import Action, require, visible_applications
from allocator.capacity import awaited
from allocator.errors import NotFound
from allocator.history import Change
from allocator.inputs import one_line
from allocator.models import (
    Application,
    Cluster,
    Decision,
    Node,
    NodeState,
    Organisation,
    Person,
    Quota,
)
from allocator.states import ApplicationState, QuotaState

MAX_SEARCH = 100


@dataclass(frozen=True)
class QueueFilter:
    """What the reader of the queue wants to see; None leaves a part open."""

    state: ApplicationState | None = ApplicationState.SUBMITTED
    category: str | None = None
    cluster: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has of one GPU type now, and the GPU-seconds that its active quotas were promised."""

    gpus: int
    gpus_up: int
    nodes: int
    nodes_up: int
    promised_gpu_seconds: int


def find(session: Session, actor: Actor, application_id: int) -> Application:
    """One application with everything its page shows. Raises NotFound for what the actor may not see."""
    application = session.scalar(
        select(Application)
        .where(Application.id == application_id)
        .options(
            joinedload(Application.applicant),
            joinedload(Application.organisation),
            joinedload(Application.cluster),
            joinedload(Application.decision).joinedload(Decision.decided_by),
            selectinload(Application.team),
        )
    )
    if application is None:
        # an anonymous visitor is asked to sign in whether or not the number exists
        require(actor, Action.APPLICATION_CREATE)
        raise NotFound()
    require(actor, Action.APPLICATION_VIEW, application)
    return application


def offers(session: Session) -> list[Offer]:
    """What can be applied for: every cluster × GPU type with nodes that have not gone for good."""
    return _offers(session, Node.state != NodeState.GONE)


def offer(session: Session, cluster: str, gpu_type: str) -> Offer | None:
    """One of ``offers()``, by slug and type."""
    if not (cluster + gpu_type).isprintable():  # PostgreSQL fails over a NUL instead of finding nothing
        return None
    found = _offers(session, Node.state != NodeState.GONE, Cluster.slug == cluster, Node.gpu_type == gpu_type)
    return found[0] if found else None


def own_applications(actor: Actor) -> Select[Application]:
    """The actor's own and its organisations', newest first, whatever a staff role lets it see besides."""
    without_role = replace(actor, roles=frozenset())
    return _listed().where(visible_applications(without_role)).order_by(Application.id.desc())


def review_queue(actor: Actor, wanted: QueueFilter) -> Select[Application]:
    """Submitted applications in order of receipt (R-23). Raises Forbidden for who has no business there."""
    require(actor, Action.APPLICATION_QUEUE)
    statement = _listed().where(visible_applications(actor), Application.submitted_at.is_not(None))
    if wanted.state is not None:
        statement = statement.where(Application.state == wanted.state)
    if wanted.category is not None:
        statement = statement.where(Application.category == wanted.category)
    if wanted.cluster is not None:
        statement = statement.where(Application.cluster.has(Cluster.slug == wanted.cluster))
    if text := one_line(wanted.text[:MAX_SEARCH]):
        statement = statement.where(_mentions(text))
    return statement.order_by(Application.submitted_at, Application.id)


def timeline(session: Session, application: Application) -> list[Change]:
    """Everything that happened to an application, oldest first."""
    return history.changes(session, application)[::-1]


def changes_since(session: Session, application: Application, version: int) -> list[Change]:
    """What happened after the page that was made from ``version``."""
    return [change for change in timeline(session, application) if change.after.get("version", 0) > version]


def accounts_of_team(session: Session, application: Application) -> dict[str, Person]:
    """Who of the team can already use the cluster: confirmed, not disabled accounts, by e-mail."""
    emails = [member.email for member in application.team]
    if not emails:
        return {}
    people = session.scalars(
        select(Person)
        .where(Person.email.in_(emails), Person.email_confirmed_at.is_not(None), Person.disabled_at.is_(None))
        .options(raiseload(Person.role_grants), raiseload(Person.memberships))
        .order_by(Person.email)
    )
    return {person.email: person for person in people}


def earlier_quotas(application: Application) -> Select[Quota]:
    """Quotas that the same person or organisation was given before, newest first."""
    same: list[ColumnElement[bool]] = [Application.applicant_id == application.applicant_id]
    if application.organisation_id is not None:
        same.append(Application.organisation_id == application.organisation_id)
    return (
        select(Quota)
        .join(Quota.application)
        .where(or_(*same), Application.id != application.id)
        .options(joinedload(Quota.application), joinedload(Quota.cluster))
        .order_by(Quota.id.desc())
    )


def quota_of(session: Session, application: Application) -> Quota | None:
    """The quota that the decision made, if any."""
    return session.scalar(select(Quota).where(Quota.application_id == application.id))


def capacity_now(session: Session, application: Application) -> Capacity:
    """What stands behind a decision about this application's cluster and GPU type."""
    nodes, gpus, nodes_up, gpus_up = session.execute(
        select(
            func.count(Node.id),
            func.coalesce(func.sum(Node.gpus), 0),
            func.count(Node.id).filter(Node.state == NodeState.UP),
            func.coalesce(func.sum(Node.gpus).filter(Node.state == NodeState.UP), 0),
        ).where(
            Node.cluster_id == application.cluster_id,
            Node.gpu_type == application.gpu_type,
            Node.state != NodeState.GONE,
            not_(awaited()),
        )
    ).one()
    promised = session.scalar(
        select(func.coalesce(func.sum(Quota.gpu_seconds), 0)).where(
            Quota.cluster_id == application.cluster_id,
            Quota.gpu_type == application.gpu_type,
            Quota.state == QuotaState.ACTIVE,
        )
    )
    return Capacity(gpus, gpus_up, nodes, nodes_up, int(promised or 0))


def place_in_queue(session: Session, application: Application) -> int:
    """How many applications were handed in before this one and still wait, plus one."""
    before = session.scalar(
        select(func.count())
        .select_from(Application)
        .where(
            Application.state == ApplicationState.SUBMITTED,
            or_(
                Application.submitted_at < application.submitted_at,
                (Application.submitted_at == application.submitted_at) & (Application.id < application.id),
            ),
        )
    )
    return (before or 0) + 1


def _listed() -> Select[Application]:
    """Applications as rows of a list: one query, nothing loaded behind the template's back."""
    return select(Application).options(
        joinedload(Application.applicant).options(
            raiseload(Person.role_grants), raiseload(Person.memberships)
        ),
        joinedload(Application.organisation),
        joinedload(Application.cluster),
        joinedload(Application.decision),
        raiseload("*"),
    )


def _mentions(text: str) -> ColumnElement[bool]:
    # SQLite's lower() knows only ASCII, so Cyrillic is tried in the ways that people write it
    spellings = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    in_title = [Application.title.icontains(spelling, autoescape=True) for spelling in spellings]
    in_name = [Organisation.name.icontains(spelling, autoescape=True) for spelling in spellings]
    named = select(Organisation.id).where(or_(Organisation.bin == text, *in_name))
    return or_(Application.organisation_id.in_(named), *in_title)


def _offers(session: Session, *conditions: ColumnElement[bool]) -> list[Offer]:
    kind = (Cluster.id, Cluster.slug, Cluster.title, Cluster.shares_nodes, Node.gpu_type)
    statement = (
        select(*kind, Node.gpus, func.count(Node.id))
        .join(Node, Node.cluster_id == Cluster.id)
        .where(*conditions)
        .group_by(*kind, Node.gpus)
        .order_by(Cluster.title, Cluster.id, Node.gpu_type)
    )
    sizes: dict[tuple[int, str, str, bool, str], dict[int, int]] = {}
    for cluster_id, slug, title, shares_nodes, gpu_type, gpus, count in session.execute(statement):
        sizes.setdefault((cluster_id, slug, title, shares_nodes, gpu_type), {})[gpus] = count
    return [
        Offer(cluster_id, slug, title, gpu_type, nodes_by_gpus, shares_nodes)
        for (cluster_id, slug, title, shares_nodes, gpu_type), nodes_by_gpus in sizes.items()
    ]
