"""A deployment knows its database: a second one with the same namespace takes nothing away."""

import os

from sqlalchemy import make_url
from typer.testing import CliRunner

from deploy.cli import app
from schemas.envelope import announce
from schemas.events.base import Member
from schemas.events.pairs import DuplicateFound
from tests.integration.conftest import MakeWorld


def test_a_second_deployment_with_the_same_namespace_is_refused(make_world: MakeWorld) -> None:
    ours = make_world()
    other = make_url(ours.settings.postgres).set(database=f"{ours.name}-other").render_as_string(hide_password=False)
    env = {**os.environ, **ours.env, "FACEMATCH_POSTGRES": other}
    refused = CliRunner(env=env).invoke(app, ["setup"])
    assert refused.exit_code == 2, refused.output
    assert "belongs to another database" in refused.output
    second = ours.stack.start_worker("sink-of-another", "sink", env={**ours.env, "FACEMATCH_POSTGRES": other})
    try:
        ours.wait(lambda: second.restarts > 0, "the other sink refuses to work")
        ours.start("sink")
        pair = {"a": Member(individual_id="a", revision=1), "b": Member(individual_id="b", revision=1)}
        ours.publish([announce(DuplicateFound(collection="c", encoder="e", **pair, distance=0.2, threshold=0.4), "t")])
        ours.wait(lambda: ours.pairs() == {("a", "b")}, "ours gets all")
    finally:
        second.stop()
    assert any("belongs to another database" in line for line in ours.lines.since(ours.begin))
    assert CliRunner(env={**os.environ, **ours.env}).invoke(app, ["setup"]).exit_code == 0


def test_a_database_that_takes_the_place_of_a_lost_one_is_taken_where_that_is_said(make_world: MakeWorld) -> None:
    ours = make_world()
    other = make_url(ours.settings.postgres).set(database=f"{ours.name}-other").render_as_string(hide_password=False)
    there = CliRunner(env={**os.environ, **ours.env, "FACEMATCH_POSTGRES": other})
    assert there.invoke(app, ["setup"]).exit_code == 2
    done = there.invoke(app, ["setup", "--new-database"])
    assert done.exit_code == 0, done.output
    assert there.invoke(app, ["setup"]).exit_code == 0
    assert CliRunner(env={**os.environ, **ours.env}).invoke(app, ["setup"]).exit_code == 2  # that is gone by now
