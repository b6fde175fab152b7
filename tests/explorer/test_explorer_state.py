"""The address: whatever it holds, the state is within bounds, nothing runs, and nothing takes long."""

import os
import random
import sys
import time
from dataclasses import replace

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescope.explorer.fields import FIELDS, OPTIMIZERS, PLANAR, Box, Choice, Number, Points, Text
from saddlescope.explorer.state import LONGEST_QUERY, MOST_WORK, ExplorerState, read_query

FUZZED = int(os.environ.get("SADDLESCOPE_FUZZ", "4000"))
"""Inputs; 1,000,000 take half an hour."""
DEFAULT = ExplorerState()


def values_of(name):
    field = FIELDS[name]
    if isinstance(field, Choice):
        return st.sampled_from(field.names)
    if isinstance(field, Number) and field.whole:
        return st.integers(int(field.low), int(field.high))
    if isinstance(field, Number):
        return st.floats(field.low, field.high)
    coordinate = st.floats(-1e6, 1e6)
    if isinstance(field, Points):
        return st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=field.most).map(tuple)
    if isinstance(field, Box):
        side = st.tuples(st.floats(-1e5, 1e5), st.floats(1.0, 1e5)).map(lambda s: (s[0], s[0] + s[1]))
        return st.one_of(st.just(()), st.tuples(side, side).map(lambda s: s[0] + s[1]))
    assert isinstance(field, Text)
    return st.sampled_from(["", "x**2 - y**2", "exp(-x*y) + 1e-3*x", "sin(2*pi*x)/(1 + y**2)"])


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({name: values_of(name) for name in FIELDS}))
def test_every_state_within_bounds_survives_its_own_address(values):
    state = ExplorerState(**values)
    if not state.rho_from < state.rho_to:
        state = replace(state, rho_from=0.0, rho_to=1.0)
    if state.steps * len(state.starts) > MOST_WORK:
        state = replace(state, steps=1)
    assert read_query(state.to_query()) == (state, ())


def test_the_empty_address_is_the_default_and_has_the_shortest_text():
    assert read_query("") == (DEFAULT, ())
    assert DEFAULT.to_query() == ""
    assert replace(DEFAULT, rho=0.25).to_query() == "rho=0.25"


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("rho=-1", "rho: got '-1', expected a number from 0 to 10"),
        ("rho=nan", "rho: got 'nan', expected a number from 0 to 10"),
        ("steps=2.5", "steps: got '2.5', expected a whole number from 1 to 5000"),
        ("steps=5001", "steps: got '5001', expected a whole number from 1 to 5000"),
        ("lr=0", "lr: got '0', expected a number from 1e-06 to 1"),
        ("landscape=../etc", "landscape: got '../etc', expected one of"),
        ("starts=", "starts: got '', expected points such as 1,2;0,-0.5"),
        ("starts=1,2,3", "starts: got '1,2,3', expected points such as 1,2;0,-0.5"),
        ("starts=inf,0", "starts: got 'inf,0', expected coordinates up to 1e+06 in size"),
        ("starts=" + ";".join(["0,0"] * 7), "starts: got '0,0;0,0;0,0;0,0;0,0;0,0;0,0...', expected at most 6 points"),
        ("bounds=1,1,0,2", "bounds: got '1,1,0,2', expected x0,x1,y0,y1 with x0 < x1 and y0 < y1"),
        ("loss=x^2", "expression, column 2: got '^'"),
        ("loss=__import__('os').system('id')", "expression, column "),
        ("rho_from=1&rho_to=0.5", "rho_from, rho_to: got (1.0, 0.5), expected rho_from < rho_to"),
        ("colour=red", "colour: no such setting"),
        ("rho", "rho: got '', expected a number from 0 to 10"),
    ],
)
def test_what_does_not_fit_is_left_out_with_a_reason(query, note):
    state, notes = read_query(query)
    assert state == DEFAULT
    assert len(notes) == 1 and notes[0].startswith(note)


def test_good_settings_stay_beside_bad_ones():
    state, notes = read_query("rho=0.25&lr=oops&loss=x**2+y**2&momentum=0.5")
    assert (state.rho, state.loss, state.momentum, state.lr) == (0.25, "x**2+y**2", 0.5, DEFAULT.lr)
    assert len(notes) == 1


def test_many_starts_share_the_steps():
    state, notes = read_query("steps=5000&starts=" + ";".join(f"{k},0" for k in range(6)))
    assert state.steps == MOST_WORK // 6 and len(state.starts) == 6
    assert "2000 are shown" in notes[0]


def test_a_giant_address_is_one_note():
    query = "loss=" + "x+" * LONGEST_QUERY
    state, notes = read_query(query)
    assert state == DEFAULT and notes == (f"address: got {len(query)} characters, expected at most {LONGEST_QUERY}",)
    notes = read_query("&".join(f"k{i}=1" for i in range(1000)))[1]
    assert len(notes) == 6 and notes[-1] == "and 995 more settings that were left out"


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rho", [0.0, 0.5, 10.0])
def test_every_optimizer_can_be_made_at_the_ends_of_the_sliders(name, rho):
    for lr, momentum in ((1e-6, 0.0), (1.0, 0.999)):
        update = ExplorerState(optimizer=name, rho=rho, lr=lr, momentum=momentum).to_update()
        assert update.lr == lr and getattr(update, "rho", rho) == rho and update.momentum == momentum


def test_named_landscapes_are_those_of_two_variables():
    assert "beale" in PLANAR and "matrix_factorization" not in PLANAR
    assert all(ExplorerState(landscape=name).to_landscape().dimension == 2 for name in PLANAR)


executed = []
sys.addaudithook(lambda event, arguments: executed and executed[-1](event))
FORBIDDEN = ("exec", "import", "open", "os.system", "subprocess.Popen", "socket.connect", "ctypes.dlopen")


@pytest.fixture
def watched():
    """Events of the interpreter that only running something can cause."""
    events = []
    executed.append(lambda event: events.append(event) if event in FORBIDDEN else None)
    yield events
    executed.clear()


def test_fuzzed_addresses_run_nothing_and_take_no_time(watched):
    generator, slowest = random.Random(20261124), 0.0
    read_query("loss=x**2 - y**2 + 1&rho=1")  # what is imported or compiled once
    watched.clear()
    for _ in range(FUZZED):
        query = hostile.query(generator)
        began = time.process_time()
        state, notes = read_query(query)
        slowest = max(slowest, time.process_time() - began)
        for name, field in FIELDS.items():
            value = getattr(state, name)
            assert not isinstance(field, Number) or field.low <= value <= field.high
        again, more = read_query(state.to_query())
        assert again == state and more == (), query
        assert sum(map(len, notes)) < 6000
    assert slowest < 1.0
    assert not watched
