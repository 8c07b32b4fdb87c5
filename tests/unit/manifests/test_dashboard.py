"""The dashboard is whole and says what it shows. No Grafana is here to draw it, so its structure is judged."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from tests.unit.manifests.shipped import GRAFANA, dashboard, load, panels

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PROVISIONED = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]


def title(panel: dict[str, Any]) -> str:
    """Return a panel's title."""
    return str(panel["title"])


@pytest.mark.parametrize("panel", panels(), ids=title)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    """Title, description, unit."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("panel", panels(), ids=title)
def test_a_panel_asks_the_data_source_that_is_chosen_above(panel: dict[str, Any]) -> None:
    """So do all its queries; each has a reference of its own."""
    assert panel["datasource"] == DATASOURCE
    assert panel["targets"]
    assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


@pytest.mark.parametrize("panel", [panel for panel in panels() if panel["type"] != "table"], ids=title)
def test_every_line_has_a_legend(panel: dict[str, Any]) -> None:
    """Not the whole series with all its labels."""
    assert all(target["legendFormat"] not in ("", "__auto") for target in panel["targets"])


def test_no_two_panels_have_one_title_or_one_id() -> None:
    """Both are how a person and a link find a panel."""
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)


def test_panels_fill_the_width_and_do_not_overlap() -> None:
    """Grafana's grid is 24 wide; a line with a hole in it looks like something missing."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    height = max(place["y"] + place["h"] for place in places)
    assert sum(place["w"] * place["h"] for place in places) == 24 * height


def test_it_shows_the_fleet_the_nodes_migrations_and_the_controller() -> None:
    """In this order, with the nodes as heat maps of what is used and what is requested."""
    headings = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert headings == ["Fleet", "Nodes", "Migrations", "Controller"]
    heat_maps = [panel for panel in panels() if panel["type"] == "heatmap"]
    shown = {target["expr"].split("(")[2].split("{")[0] for panel in heat_maps for target in panel["targets"]}
    assert shown == {f"node_{what}_{kind}_ratio" for what in ("cpu", "memory") for kind in ("usage", "requested")}


def test_a_heat_map_shows_idle_nodes_too() -> None:
    """Grafana hides cells that are not above a bound of 1e-9, unless it is told another."""
    assert all(panel["options"]["filterValues"]["le"] < 0 for panel in panels() if panel["type"] == "heatmap")


def test_the_variables_that_queries_use_are_defined() -> None:
    """Beside those of Grafana itself; a rate is taken over the interval that fits the scrape interval."""
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert defined == {"datasource", "job", "node"}
    for panel in panels():
        for target in panel["targets"]:
            rest = re.sub(r'"\$(job|node)"|\[\$__(rate_interval|interval|range)\]', "", target["expr"])
            assert "$" not in rest, target["expr"]
            assert 'job=~"$job"' in target["expr"], target["expr"]


def test_a_count_over_a_step_is_taken_over_the_step_and_that_holds_several_scrapes() -> None:
    """Over anything longer an event is counted in several steps; over less than two scrapes none is seen."""
    for panel in panels():
        counts = ["increase(" in target["expr"] for target in panel["targets"]]
        assert any(counts) == (panel.get("interval") == "1m"), panel["title"]
        for target in panel["targets"]:
            assert ("[$__interval]" in target["expr"]) == ("increase(" in target["expr"]), target["expr"]


def test_the_provisioned_data_source_is_the_dashboard_s_first_choice() -> None:
    """By uid, which is what a dashboard keeps."""
    variable = next(item for item in dashboard()["templating"]["list"] if item["name"] == "datasource")
    assert variable["type"] == "datasource"
    assert [source["uid"] for source in PROVISIONED] == [variable["current"]["value"]]
    assert [source["type"] for source in PROVISIONED] == [variable["query"]]


def test_it_is_the_last_classic_schema() -> None:
    """Grafana upgrades older ones at each load, and reads no newer one from a file of this form."""
    assert dashboard()["schemaVersion"] == 42
