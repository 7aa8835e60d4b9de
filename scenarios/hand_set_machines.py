"""Machines set by hand: what memories compute exactly, at any step, and where a tape in numbers runs out of bits.

Claim: without training, a neural Turing machine copies as many words as it has slots and, as on any ring, overwrites
the first ones with more; a differentiable neural computer says 1 to 10 words 1 to 10 times over, following its links; a
stack network tells after every prefix of every string of 8 brackets of two kinds what may come next; a neural network
pushdown automaton with one signed action accepts w c...c w^R and nothing else; an LSTM cell and two ReLU units count
200,000 symbols, of any order. Not a single answer is wrong.

A Turing machine needs no memory but two numbers: five saturated-linear units for each of its instructions do one of its
steps at every step, with the tape's halves as base-4 fractions of digits 1 and 3. Busy beavers of 2, 3 and 4 states
write and halt as they should. A number of p bits holds (p - 1) // 2 cells, 26 in float64 and 11 in float32: to there
all is exact, and it goes wrong soon after. With its tape in the stacks of a network the machine goes on.

The control of the machines with a memory is a continuous-time network with voltages that aim at -10 or 10 and rates
that saturate at 0 and 1. Between two ticks of a clocked memory the voltages cross both bounds, whatever the step, and
so the memory takes the same values, bit for bit, at dt = tau, tau / 2, tau / 5 and tau / 16. Such a control sees
levels, not edges: that a symbol was there twice it can tell by the memory only, and so the automaton takes any number
of c. The numbers of the Turing machine have no clock: it is one at dt = tau only.

Source: Graves, Wayne & Danihelka (2014), arXiv:1410.5401; Graves et al. (2016), Nature 538:471-476; Joulin & Mikolov
(2015), NeurIPS, arXiv:1503.01007; Sun, Giles, Chen & Lee (1993), UMIACS-TR-93-77, arXiv:1711.05738; Siegelmann & Sontag
(1995), Journal of Computer and System Sciences 50:132-150; Weiss, Goldberg & Yahav (2018), ACL, arXiv:1805.04908; Brady
(1983), Mathematics of Computation 40:647-665; Marxen & Buntrock (1990), Bulletin of the EATCS 40:247-251.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from ctrnn import (
    CTRNN,
    DNC,
    LSTM,
    NTM,
    Elman,
    Fixed,
    Held,
    LSTMState,
    Pushdown,
    RateRNN,
    StackRNN,
    analysis,
    integrate,
    plots,
)
from ctrnn import _tree as tree
from ctrnn.models.memory.segments import newest_first
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Copy, Dyck, RepeatCopy

# Voltages aim at -SWING or SWING: when tau is over they are beyond 0 or 1, for e^-1 of the way is left at most.
SWING = 10.0
SURE = 1000.0  # logits: sigma(-SURE) = 0 and sigma(SURE) = 1, to the last bit
FEWER = 5  # times fewer symbols are counted in steps of tau / 2
PARTS = (2, 5, 16)  # steps to a tau
BITS, MOST = 8, 10  # of a word; words and repeats
DIGITS = {torch.float32: 24, torch.float64: 53}  # binary ones of a number
BEAVERS = {  # instructions for symbol 0 and 1 in states A, B, ...: symbol to write, move, next state; Z is the halt
    2: "1RB1LB_1LA1RZ",
    3: "1RB1RZ_1LB0RC_1LC1LA",
    4: "1RB1LB_1LA0LC_1RZ1LD_1RD0RA",
    5: "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA",
}
NTM14, DNC16 = "Graves, Wayne & Danihelka (2014), section 4.1", "Graves et al. (2016), Nature 538:471-476, Methods"
STACKS, NNPDA = "Joulin & Mikolov (2015), NeurIPS", "Sun, Giles, Chen & Lee (1993): palindromes with a marker"
NUMBERS = "Siegelmann & Sontag (1995): stacks as base-4 fractions of digits 1 and 3"
WEISS = "Weiss, Goldberg & Yahav (2018); F_c - c = i g when f = 1; relu(z) - relu(-z) = z"
BEAVER = "Lin & Rado (1965), Journal of the ACM 12:196-212; Brady (1983): 6, 21 and 107 steps are the most there are"
CLOCKED = "clocked memories take whole steps at their ticks"


class Copies(NamedTuple):
    """Two machines that copy: answers, wrong ones, and where the write head was."""

    bits: int
    wrong: int
    overwritten: int  # wrong as copies, as the ring was overwritten
    misplaced: int  # weights of the write head that are not 1 at the next slot and 0 elsewhere
    repeated: int  # bits of the repeat copy
    repeated_wrong: int


class Grammars(NamedTuple):
    """Two machines with a stack."""

    told: int  # what may come next after a prefix, symbol by symbol
    told_wrong: int
    judged: int  # prefixes
    judged_wrong: int
    members: int  # of these prefixes


class Tapes(NamedTuple):
    """Turing machines."""

    halts: list[list[int]]  # steps and ones, of each beaver in numbers
    numbers: int  # of these steps, how many left another configuration
    limits: dict[torch.dtype, "Limit"]
    stacked: list[int]  # steps of the greatest beaver with its tape in stacks, and after how many it was wrong
    cells: int  # that its longer half then had


class Limit(NamedTuple):
    """Where the bits run out for the greatest beaver."""

    fits: int  # steps until a half of the tape has more than (p - 1) // 2 cells
    exact: int  # steps after which both numbers were what they should be
    cells: int  # of the longer half one step later
    obeyed: int  # steps after which state and symbol were right


class Found(NamedTuple):
    """All of it."""

    copies: Copies
    grammars: Grammars
    counts: dict[str, list[float]]  # counter -> greatest error at dt = tau in float32, at dt = tau / 2 in float64
    tapes: Tapes
    gaps: dict[str, float]  # machine -> greatest difference of memory and outputs between dt = tau and below


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 1, slots: int = 64, n: int = 100_000, steps: int = 5000
) -> Result:
    """Set all machines by hand and compare them with plain Python.

    Args:
        quick: fewer slots, words, symbols and steps.
        seed: of words; the machines have no other chance.
        seeds: not used, nothing else is random.
        slots: of the neural Turing machine.
        n: a's and b's that the counters read.
        steps: of the Turing machine with its tape in stacks.
    """
    del seeds
    if quick:
        slots, n, steps = 8, 500, 300
    generator, report = Generator().manual_seed(seed), progress(5, "machines")
    parts: list[Callable[[], Any]] = [
        lambda: copies(slots, generator),
        lambda: grammars(quick, generator),
        lambda: counts(n, generator),
        lambda: tapes(steps),
        lambda: gaps(generator),
    ]
    results: list[Any] = []
    for part in parts:
        results.append(part())
        report(len(results))
    found = Found(*results)
    return Result(figure(found, generator), claims(found, n))


# ---- control and weights


def saturated(x: Tensor) -> Tensor:
    """min(1, max(0, x)), the activation of Siegelmann & Sontag."""
    return x.clamp(0, 1)


class Control(CTRNN):
    """tau dx/dt = 10 (2 s(W_rec s(x) + W_in u + b) - 1) - x,   y = s(x),   s(x) = min(1, max(0, x)).

    With whole numbers for inputs and weights all units are 0 or 1 after tau at the latest, at any dt.
    """

    def target(self, t: Tensor, x: Tensor, u: Tensor, alpha: Any = 0) -> Tensor:  # type: ignore[override]
        return SWING * (2 * saturated(super().target(t, x, u, alpha)) - 1)


M = TypeVar("M", bound=Any)
ONE = "1"
Form = dict[str, float]  # a weighted sum: weights of names, and of ONE, the constant


def weights(forms: Iterable[Form], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """A row and a constant for each sum."""
    forms = list(forms)
    unknown = set().union(*forms) - {*names, ONE}
    assert not unknown, unknown
    rows = [[form.get(name, 0.0) for name in (*names, ONE)] for form in forms]
    table = torch.tensor(rows, dtype=torch.float64)
    return table[:, :-1], table[:, -1]


def control(inputs: Sequence[str], rules: dict[str, Form]) -> Control:
    """A unit for each rule: 1 where the sum over inputs and units is 1 or more, 0 where it is 0 or less."""
    net = Control(len(rules), len(inputs), activation=saturated, generator=Generator()).double().requires_grad_(False)
    table, net.b_rec[:] = weights(rules.values(), [*inputs, *rules])
    net.W_in[:], net.W_rec[:] = table.split([len(inputs), len(rules)], 1)
    return net


def told(machine: M, rules: dict[str, Form], heads: Iterable[Form], out: tuple[Sequence[str], list[Form]]) -> M:
    """The machine, whose heads and outputs see the units of its control, and outputs what is read besides."""
    machine = machine.double().requires_grad_(False)
    machine.W_heads[:], machine.b_heads[:] = weights(heads, list(rules))
    if machine.W_out is not None:
        reads, forms = out
        machine.W_out[:], machine.b_out[:] = weights(forms, [*rules, *reads])
    return machine


def gate(form: Form) -> Form:
    """The logit that says yes where a sum is 1 and no where it is 0."""
    return {name: 2 * SURE * value for name, value in plus(form, {ONE: -0.5}).items()}


def plus(*forms: Form) -> Form:
    """Sums added up."""
    return {name: sum(form.get(name, 0.0) for form in forms) for name in itertools.chain(*forms)}


def times(factor: float, form: Form) -> Form:
    """A sum, so many times."""
    return {name: factor * value for name, value in form.items()}


def only(names: Iterable[str]) -> Form:
    """Names added up."""
    return dict.fromkeys(names, 1.0)


def names_of(letter: str, count: int) -> list[str]:
    """Numbered names."""
    return [f"{letter}{k}" for k in range(count)]


def play(machine: Any, us: Tensor, parts: int = 1) -> Any:
    """The states after each symbol, each held for tau in so many steps."""
    with torch.no_grad():
        return integrate(machine, Held(us.double(), 1.0), steps=Fixed(1 / parts))


# ---- copying


def copier(slots: int) -> NTM:
    """Writes a word a step, slot by slot, until the delimiter; then reads, slot by slot. Both heads begin one before.

    The unit `over` latches at the delimiter, at which no head moves.
    """
    shown, read = names_of("u", BITS), names_of("r", BITS)
    rules: dict[str, Form] = {f"bit {name}": {name: 1} for name in shown}
    rules |= {"mark": {"delimiter": 1}, "over": {"over": 1, "delimiter": 1}}
    net = NTM(control([*shown, "delimiter", *read], rules), BITS, slots=slots, width=BITS, learn_weights=False)
    add = [{f"bit {name}": 1.0} for name in shown]
    write, still = {ONE: 1.0, "over": -1.0}, {"over": 1.0}
    reads, waits = {"over": 1.0, "mark": -1.0}, {ONE: 1.0, "over": -1.0, "mark": 1.0}
    nothing: Form = {}
    keys, strengths, exponents, gates = [nothing] * 2 * BITS, [nothing] * 2, [{ONE: 30.0}] * 2, [gate(nothing)] * 2
    shifts = map(gate, (nothing, still, write, nothing, waits, reads))
    heads = [*keys, *add, *strengths, *exponents, *gates, *[gate(write)] * BITS, *shifts]
    net = told(net, rules, heads, (read, [{name: 2.0, ONE: -1.0} for name in read]))
    net.w_0[:], net.memory_0[:] = -SURE, 0
    net.w_0[:, -1] = 0  # all weight on the last slot: the first shift leads to slot 0
    return net


def repeater(slots: int, bits: int) -> DNC:
    """Writes START, the words, and END with the number n; then follows the links, again and again.

    Head A reads what is said, B is one word ahead, and C looks at START, where the passes are counted. Where B sees END
    a pass is over: A goes to the word marked FIRST, B to the one marked SECOND, by content, and 1 is added at START. B
    looks at START while words come in, which is how the control, which remembers nothing, knows it.
    """
    shown, flags = names_of("u", bits), ("START", "FIRST", "SECOND", "END", "count")
    word = [*names_of("", bits), *flags]
    read = [f"{head} {name}" for head in "ABC" for name in word]
    left = {"B count": 1.0, "C count": -1.0}  # n less the passes that are over, where B sees END
    rules: dict[str, Form] = {f"bit {name}": {name: 1} for name in shown}
    rules |= {f"n {k}": {"number": 1, ONE: 1 - k} for k in range(1, MOST + 1)}  # as many of these as n
    rules |= {
        "start": {"start flag": 1},
        "write": {"start flag": 1, "B START": 1},
        "first": {"A START": 1, "B START": 1, ONE: -1},
        "second": {"A FIRST": 1, "B START": 1, ONE: -1},
        "wrap": plus(left, {"B END": 1, ONE: -2}),
        "done": plus(times(-1, left), {"B END": 2 + MOST, ONE: -MOST}),
    }
    number = [f"n {k}" for k in range(1, MOST + 1)]
    net = DNC(control([*shown, "start flag", "number", *read], rules), bits + 1, slots=slots, width=len(word), reads=3)
    seek = lambda **forms: [forms.get(name, {}) for name in word]
    keys = [
        *seek(START={ONE: 1}),  # of the write head
        *seek(START=only(["start", "n 1"]), FIRST={"wrap": 1}),
        *seek(START={"write": 1, "n 1": -1}, FIRST={"n 1": 1}, SECOND={"wrap": 1}),
        *seek(START={ONE: 1}),
    ]
    add: list[Form] = [{f"bit {name}": 1} for name in shown]
    add += [{"start": 1}, {"first": 1}, {"second": 1}, {"n 1": 1}, only([*number, "wrap"])]
    strengths, erase, free = [{ONE: 1e5}] * 4, [gate({})] * len(word), [gate({})] * 3
    allocate, write = gate({ONE: 1, "wrap": -1}), gate(only(["write", "wrap"]))
    modes = []
    for content in (only(["start", "n 1", "wrap"]), only(["write", "wrap"]), {ONE: 1.0}):
        modes += [gate({}), gate(content), gate(plus({ONE: 1}, times(-1, content)))]
    said: list[Form] = [{f"A {k}": 2, ONE: -1} for k in range(bits)]
    return told(
        net,
        rules,
        [*keys, *add, *strengths, *erase, *free, allocate, write, *modes],
        (read, [*said, {"done": 2, ONE: -1}]),
    )


def copy_trials(lengths: Tensor, generator: Generator) -> tuple[Any, Tensor]:
    """Words of these numbers to copy; the words."""
    task = Copy(BITS)
    words = torch.randint(2, (int(lengths.max()), len(lengths), BITS), generator=generator).double()
    return task.played(task.of(words, lengths), 1.0), words


def repeat_trials(sizes: Tensor, bits: int, generator: Generator) -> tuple[Any, Tensor]:
    """Words to say again, for each (words, repeats); the number shown is n itself."""
    task = RepeatCopy(bits, start_flag=True, centre=0, scale=1)
    words = torch.randint(2, (int(sizes[:, 0].max()), len(sizes), bits), generator=generator).double()
    return task.played(task.of(words, *sizes.T), 1.0), words


def ring(words: list[Any], slots: int) -> list[Any]:
    """What a ring of so many slots says of the words that were written round it."""
    held = dict(enumerate(words[:slots]))
    held.update((k % slots, word) for k, word in enumerate(words))
    return [held[k % slots] for k in range(len(words))]


def copies(slots: int, generator: Generator) -> Copies:
    """Copy 1 to 5 / 4 slots words; say 1 to 10 words 1 to 10 times over."""
    lengths = torch.arange(1, slots + slots // 4 + 1)
    trials, words = copy_trials(lengths, generator)
    net = copier(slots)
    traj = play(net, trials.us)
    said, wrong = traj.ys > 0, 0
    for k, length in enumerate(lengths.tolist()):
        expected = ring((words[:length, k] > 0).tolist(), slots)
        wrong += int((said[length + 1 : 2 * length + 1, k] != torch.tensor(expected)).sum())
    asked = trials.mask[..., None].expand_as(said)
    slot = torch.arange(int(lengths[-1])) % slots
    there = traj.xs.write_weights[: len(slot), -1, 0] == nn.functional.one_hot(slot, slots)  # in the longest trial
    bits = 4
    sizes = torch.cartesian_prod(torch.arange(1, MOST + 1), torch.arange(1, MOST + 1))
    again, words = repeat_trials(sizes, bits, generator)
    answers, answers_wrong = play(repeater(MOST + 2, bits), again.us).ys > 0, 0
    for k, (length, repeats) in enumerate(sizes.tolist()):
        sequence = [[*word, False] for word in (words[:length, k] > 0).tolist()] * repeats
        due = torch.tensor([*sequence, [False] * bits + [True]])
        answers_wrong += int((answers[length + 2 :, k][: len(due)] != due).sum())
    return Copies(
        int(asked.sum()),
        wrong,
        int((said != (trials.targets > 0))[asked].sum()),
        int((~there).sum()),
        int(again.mask.sum()) * (bits + 1),
        answers_wrong,
    )


# ---- grammars


def bracketer(depth: int) -> StackRNN:
    """Pushes what opens, pops at what closes, and says which of ( [ ) ] and the end may come next.

    It reads two cells: what will be on top after a pop is under the top before. A bracket that closes another kind than
    the one on top, or none, is an error for ever.
    """
    inputs = ["(", "[", ")", "]", "top (", "top [", "under (", "under ["]
    rules: dict[str, Form] = {"open (": {"(": 1}, "open [": {"[": 1}, "close": only(")]")}
    rules |= {f"left {kind}": {f"under {kind}": 1, ")": 1, "]": 1, ONE: -1} for kind in "(["}
    rules |= {f"wrong {b}": {f"wrong {b}": 2, b: 1, f"top {a}": -1} for a, b in ("()", "[]")}
    net = StackRNN(control(inputs, rules), 5, depth=depth, width=2, top=2, empty=0.0)
    opened = [only([f"open {kind}"]) for kind in "(["]
    heads = map(gate, ({"open (": 1, "open [": 1}, {"close": 1}, *opened))
    wrong = {"wrong )": -2.0, "wrong ]": -2.0}
    top = [only([f"open {kind}", f"left {kind}"]) for kind in "(["]
    closes = [plus(times(2, form), wrong, {ONE: -1}) for form in top]
    out = [*[plus(wrong, {ONE: 1})] * 2, *closes, plus(times(-2, plus(*top)), wrong, {ONE: 1})]
    # The readout of a stack network sees the control alone.
    return told(net, rules, heads, ((), out))


def palindromer(slots: int) -> Pushdown:
    """Pushes a and b until c comes, then pops, and compares what it reads with what it pops.

    A word is in the language if nothing was wrong, c came, and the stack is empty.
    """
    inputs = ["a", "b", "c", "top a", "top b", "top c"]
    rules: dict[str, Form] = {
        "mark": {"c": 1},
        "turned": {"turned": 1, "c": 1},
        "past": {"past": 1, "turned": 1, "c": -1},  # a letter came after c
        "wrong c": {"wrong c": 1, "past": 1, "c": 1, ONE: -1},
    }
    rules |= {f"wrong {k}": {f"wrong {k}": 2, k: 1, "turned": 1, f"top {k}": -1, ONE: -1} for k in "ab"}
    net = Pushdown(control(inputs, rules), 1, slots=slots)
    action = {"turned": -2 * SURE, "mark": SURE, ONE: SURE}
    right = plus({"turned": 2, ONE: -1}, times(-2, only(f"wrong {k}" for k in "abc")))
    return told(net, rules, [action], ((), [right]))


def what_may_follow(word: Sequence[int]) -> Iterator[list[bool]]:
    """After each bracket, whether ( [ ) ] and the end may come next."""
    held: list[int] = []
    right = True
    for symbol in word:
        if symbol < 2:
            held.append(symbol)
        elif right:
            right = bool(held) and held.pop() == symbol - 2
        yield [right and may for may in (True, True, held[-1:] == [0], held[-1:] == [1], not held)]


def is_palindrome(word: str) -> bool:
    """Whether a word is w c...c w^R."""
    parts = re.fullmatch("([ab]*)c+([ab]*)", word)
    return parts is not None and parts[1] == parts[2][::-1]


def all_strings(symbols: int, length: int) -> Tensor:
    """(string, symbol): every string of that length."""
    return torch.tensor(list(itertools.product(range(symbols), repeat=length)))


def one_hot(words: Tensor, symbols: int) -> Tensor:
    """(string, symbol) as inputs (symbol, string, channel)."""
    return nn.functional.one_hot(words, symbols).transpose(0, 1)


def bracket_words(length: int, batch: int, generator: Generator) -> Tensor:
    """Random words of balanced brackets (string, symbol)."""
    return Dyck(lengths=(length, length)).words(batch, generator).T


def letters(length: int, batch: int, generator: Generator) -> Tensor:
    """Words w c c w^R; in every other one a letter of w^R is changed."""
    half = torch.randint(2, (batch, length), generator=generator)
    back = half.flip(-1)
    back[1::2, length // 2] = 1 - back[1::2, length // 2]
    return torch.cat([half, torch.full((batch, 2), 2), back], -1)


def grammars(quick: bool, generator: Generator) -> Grammars:
    """All short strings, and some long ones."""
    length, longest, deep = (5, 100, 60) if quick else (8, 2000, 250)
    told_, told_wrong = 0, 0
    for words in (all_strings(4, length), bracket_words(longest, 16, generator)):
        said = (play(bracketer(min(words.shape[1], deep) + 1), one_hot(words, 4)).ys > 0).transpose(0, 1)
        expected = torch.tensor([list(what_may_follow(word)) for word in words.tolist()])
        told_, told_wrong = told_ + expected.numel(), told_wrong + int((said != expected).sum())
    length, longest = (6, 20) if quick else (10, 400)
    judged, judged_wrong, members = 0, 0, 0
    for words in (all_strings(3, length), letters(longest, 8, generator)):
        net = palindromer(words.shape[1])
        traj = play(net, one_hot(words, 3))
        accepted = ((traj.ys[..., 0] > 0) & (net.length(traj.xs) == 0)).T
        texts = ["".join("abc"[k] for k in word) for word in words.tolist()]
        expected = torch.tensor([[is_palindrome(text[: k + 1]) for k in range(len(text))] for text in texts])
        judged, members = judged + expected.numel(), members + int(expected.sum())
        judged_wrong += int((accepted != expected).sum())
    return Grammars(told_, told_wrong, judged, judged_wrong, members)


# ---- counting


def lstm_counter() -> LSTM:
    """c <- c + g with g = 1 for an a and -1 for a b; gates at 40 are open to the last bit."""
    net = LSTM(1, 2, generator=Generator()).double().requires_grad_(False)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    net.b_in[:] = torch.tensor([40.0, 40.0, 0.0, 40.0])
    net.W_in[2] = torch.tensor([20.0, -20.0])
    return net


def relu_counter() -> Elman:
    """The count is x_1 - x_2: x_1 <- relu(x_1 - x_2 + u), x_2 <- relu(x_2 - x_1 - u), u = 1 for an a and -1 for a b."""
    net = Elman(2, 2, activation=torch.relu, generator=Generator()).double().requires_grad_(False)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    net.W_rec[:] = net.W_in[:] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return net


def count(xs: Any) -> Tensor:
    """The count in a state."""
    return xs.c[..., 0] if isinstance(xs, LSTMState) else xs[..., 0] - xs[..., 1]


def counted_words(n: int, generator: Generator) -> Tensor:
    """a^n b^n, and the same letters in random order: (word, symbol), 0 for an a and 1 for a b."""
    block = torch.arange(2 * n) // n
    return torch.stack([block, block[torch.randperm(2 * n, generator=generator)]])


def counts(n: int, generator: Generator) -> dict[str, list[float]]:
    """The greatest error of the count after any symbol."""
    long, short = counted_words(n, generator), counted_words(n // FEWER, generator)
    found: dict[str, list[float]] = {}
    for name, net in (("LSTM cell", lstm_counter()), ("ReLU pair", relu_counter())):
        fine = miscount(net, short, 0.5)  # in float64 before the network is cast
        found[name] = [miscount(net.float(), long, 1.0), fine]
    return found


def miscount(net: LSTM | Elman, words: Tensor, dt: float) -> float:
    """The greatest error, in the precision of the network, with so long steps while a symbol is held for tau."""
    expected = torch.tensor([list(itertools.accumulate(1 - 2 * k for k in word)) for word in words.tolist()]).T
    drive = Held(one_hot(words, 2).to(net.W_rec.dtype), 1.0)
    return float((count(integrate(net, drive, steps=Fixed(dt)).xs).double() - expected).abs().max())


# ---- Turing machines

Table = dict[tuple[str, int], tuple[int, str, str]]  # (state, symbol) -> symbol to write, L or R, next state


def table(text: str) -> Table:
    """A machine from its standard text."""
    rows = [(row[:3], row[3:]) for row in text.split("_")]
    return {("ABCDE"[i], a): (int(do[0]), do[1], do[2]) for i, row in enumerate(rows) for a, do in enumerate(row)}


class Place(NamedTuple):
    """Where a Turing machine is: its state, the symbol under its head, and the visited cells beside, nearest first."""

    state: str
    symbol: int
    left: list[int]
    right: list[int]


def simulated(machine: Table, steps: int) -> list[Place]:
    """The places after each step, until it halts."""
    tape: dict[int, int] = {}
    state, at, places = "A", 0, []
    low = high = 0
    for _ in range(steps):
        if (state, tape.get(at, 0)) not in machine:
            break
        tape[at], move, state = machine[state, tape.get(at, 0)]
        at += 1 if move == "R" else -1
        low, high = min(low, at), max(high, at)
        left, right = range(at - 1, low - 1, -1), range(at + 1, high + 1)
        places.append(Place(state, tape.get(at, 0), [tape.get(k, 0) for k in left], [tape.get(k, 0) for k in right]))
    return places


def fraction(cells: Sequence[int]) -> Fraction:
    """sum_k (2 cell_k + 1) / 4^k, k = 1, 2, ..."""
    return sum((Fraction(2 * cell + 1, 4**k) for k, cell in enumerate(cells, 1)), Fraction(0))


def cells_of(number: float) -> list[int]:
    """The cells that a number stands for."""
    rest, cells = Fraction(number), []
    while rest > 0:
        digit = int(4 * rest)
        cells.append(int(digit > 1))
        rest = 4 * rest - digit
    return cells


def in_numbers(machine: Table) -> RateRNN:
    """r <- s(W_rec r + W_in u + b): a Turing machine, a step for a step, with the halves of its tape in two numbers.

    State and symbol are one of a set. Five units for each instruction, silent unless it is carried out: the number that
    is pushed to, q / 4 + (2 w + 1) / 4; two for the one that is popped, s(4 q - 1) and s(4 q - 3), of which the sum is
    1 too great where its top is 1; and two that say whether the top, the next symbol, is 0 or 1. A half with nothing in
    it is 0, reads as a cell of 0, and stays 0 if popped. Outputs: the two numbers, then each state's symbols 0 and 1.
    """
    units = [f"{i}{a} {kind}" for i, a in machine for kind in ("push", "low", "high", "0", "1")]

    def half(side: str) -> Form:
        forms: list[Form] = []
        for (i, a), (_, move, _) in machine.items():
            popped = {f"{i}{a} low": 1.0, f"{i}{a} high": 1.0, f"{i}{a} 1": -1.0}
            forms.append({f"{i}{a} push": 1.0} if move != side else popped)
        return plus(*forms)

    def is_at(state: str, symbol: int) -> Form:
        start = {"u": 1.0} if (state, symbol) == ("A", 0) else {}
        return plus(start, only(f"{i}{a} {symbol}" for (i, a), (_, _, to) in machine.items() if to == state))

    rules: list[Form] = []
    for (i, a), (written, move, _) in machine.items():
        pushed, popped = (half(side) for side in ("LR" if move == "R" else "RL"))
        silenced = plus(is_at(i, a), {ONE: -1})
        rules += [
            plus(times(1 / 4, pushed), {ONE: (2 * written + 1) / 4}, silenced),
            plus(times(4, popped), {ONE: -1}, times(3, silenced)),
            plus(times(4, popped), {ONE: -3}, silenced),
            plus(times(-4, popped), {ONE: 3}, times(3, silenced)),
            plus(times(4, popped), {ONE: -2}, times(2, silenced)),
        ]
    states = [*sorted({i for i, _ in machine}), "Z"]
    out = [half("L"), half("R"), *[is_at(i, a) for i in states for a in (0, 1)]]
    net = RateRNN(len(units), 1, len(out), activation=saturated, generator=Generator()).double().requires_grad_(False)
    rows, net.b_rec[:] = weights(rules, ["u", *units])
    net.W_in[:], net.W_rec[:] = rows.split([1, len(units)], 1)
    rows, net.b_out[:] = weights(out, ["u", *units])
    net.W_out[:] = rows[:, 1:]
    return net


def in_stacks(machine: Table, depth: int) -> StackRNN:
    """The same machine with its tape in two stacks, and its state and symbol on top of a third."""
    states = [*sorted({i for i, _ in machine}), "Z"]
    word = ["cell", *states]
    inputs = ["u", *[f"{stack} {name}" for stack in ("L", "R", "now") for name in word]]
    rules: dict[str, Form] = {}
    for (i, a), (_, move, _) in machine.items():
        start = {"u": 1.0} if (i, a) == ("A", 0) else {}
        at = {f"now {i}": 1.0, "now cell": 2.0 * a - 1, ONE: -float(a)}
        rules[f"{i}{a}"] = plus(at, start)
        rules[f"{i}{a} then 1"] = plus(at, start, {f"{move} cell": 1, ONE: -1})
    step, nothing = only(f"{i}{a}" for i, a in machine), [{}] * len(states)
    stay = plus({ONE: 1}, times(-1, step))
    cell = only(f"{i}{a}" for (i, a), (written, _, _) in machine.items() if written)
    left, right = (only(f"{i}{a}" for (i, a), (_, move, _) in machine.items() if move == side) for side in "LR")
    then = [only(f"{i}{a}" for (i, a), (_, _, to) in machine.items() if to == state) for state in states]
    now = [only(f"{i}{a} then 1" for i, a in machine), *then]
    actions = [right, left, stay, left, right, stay, step, {}, stay]
    net = StackRNN(control(inputs, rules), stacks=3, depth=depth, width=len(word), top=1, stay=True, empty=0.0)
    return told(net, rules, map(gate, [*actions, cell, *nothing, cell, *nothing, *now]), ((), []))


def start(steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A pulse that sets a machine off, with its first step."""
    us = torch.zeros(steps, 1, dtype=dtype)
    us[0] = 1
    return us


def marks(machine: Table, places: Sequence[Place]) -> Tensor:
    """State and symbol as one of a set (step, state and symbol)."""
    states = [*sorted({i for i, _ in machine}), "Z"]
    code = [2 * states.index(place.state) + place.symbol for place in places]
    return nn.functional.one_hot(torch.tensor(code), 2 * len(states))


def followed(machine: Table, places: Sequence[Place], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The numbers (step, half), and after which steps they, and state and symbol, are right."""
    net = in_numbers(machine).to(dtype)
    ys = integrate(net, start(len(places), dtype), dt=1.0).ys.double()
    exact = [
        [Fraction(number) == fraction(cells) for number, cells in zip(row, (place.left, place.right), strict=True)]
        for row, place in zip(ys[:, :2].tolist(), places, strict=True)
    ]
    return ys[:, :2], torch.tensor(exact).all(-1), (ys[:, 2:] == marks(machine, places)).all(-1)


def until(right: Tensor) -> int:
    """How many entries are True before the first that is not."""
    return int(right.long().cumprod(0).sum())


def tapes(steps: int) -> Tapes:
    """Busy beavers until they halt, and the greatest one until bits run out."""
    halts, wrong = [], 0
    for states in (2, 3, 4):
        machine = table(BEAVERS[states])
        places = simulated(machine, 200)
        ys = integrate(in_numbers(machine), start(len(places) + 5), dt=1.0).ys
        _, exact, obeyed = followed(machine, places, torch.float64)
        wrong += int((~(exact & obeyed)).sum())
        on = (ys[:, 2:] > 0.5).any(-1)
        last = ys[until(on) - 1]
        ones = sum(map(sum, map(cells_of, last[:2].tolist()))) + int(last[3::2].sum())
        halts.append([until(on), ones])
    machine = table(BEAVERS[5])
    places = simulated(machine, steps)
    longer = torch.tensor([max(len(place.left), len(place.right)) for place in places])
    limits = {}
    for dtype, bits in DIGITS.items():
        _, exact, obeyed = followed(machine, places[:2000], dtype)
        fits = until(longer <= (bits - 1) // 2)
        limits[dtype] = Limit(fits, until(exact), int(longer[min(until(exact), len(exact) - 1)]), until(obeyed))
    net = in_stacks(machine, int(longer.max()) + 1)
    return Tapes(halts, wrong, limits, [len(places), until(stacks_right(net, places))], int(longer.max()))


def stacks_right(net: StackRNN, places: Sequence[Place]) -> Tensor:
    """After which steps tape, state and symbol in the stacks are right."""
    stacks = play(net, start(len(places))).xs.stacks
    depth, states = stacks.shape[-2], "ABCDEFG"[: stacks.shape[-1] - 2] + "Z"
    rows = [[(*side, *[0] * depth)[:depth] for side in (place.left, place.right)] for place in places]
    now = [[place.symbol, *[int(place.state == i) for i in states]] for place in places]
    tape = (stacks[:, :2, :, 0] == torch.tensor(rows)).flatten(1).all(-1)
    return tape & (stacks[:, 2, 0] == torch.tensor(now)).all(-1)


# ---- below dt = tau


def examples(generator: Generator) -> dict[str, tuple[Any, Tensor]]:
    """Every machine with a clocked memory, and something to do."""
    sizes = torch.tensor([[1, 1], [3, 4], [5, 2], [1, 5]])
    machine = table(BEAVERS[4])
    return {
        "neural Turing machine": (copier(8), copy_trials(torch.tensor([3, 8, 10]), generator)[0].us),
        "differentiable neural computer": (repeater(MOST + 2, 4), repeat_trials(sizes, 4, generator)[0].us),
        "stack network": (bracketer(12), one_hot(mixed(4, bracket_words(12, 8, generator), generator), 4)),
        "pushdown automaton": (palindromer(12), one_hot(mixed(3, letters(5, 8, generator), generator), 3)),
        "Turing machine in stacks": (in_stacks(machine, 20), start(len(simulated(machine, 200)) + 5)),
    }


def mixed(symbols: int, words: Tensor, generator: Generator) -> Tensor:
    """These words, and strings of as many random symbols."""
    return torch.cat([words, torch.randint(symbols, (64, words.shape[1]), generator=generator)])


def gaps(generator: Generator) -> dict[str, float]:
    """The greatest difference in what is held and said between steps of tau and finer ones."""
    found = {}
    for name, (net, us) in examples(generator).items():
        held = lambda traj: [*tree.leaves(traj.xs._replace(controller=())), traj.ys]
        whole = held(play(net, us))
        finer = [held(play(net, us, parts)) for parts in PARTS]
        found[name] = max(float((a - b).abs().max()) for run_ in finer for a, b in zip(whole, run_, strict=True))
    return found


# ---- what was found


def claims(found: Found, n: int) -> list[Claim]:
    """Every one of them is exact."""
    return [*_of_memories(found), *_of_counters(found.counts, n), *_of_tapes(found.tapes), *_of_steps(found.gaps)]


def none(text: str, wrong: int, source: str) -> Claim:
    """Nothing was wrong."""
    return Claim.equal(text, wrong, 0, f"{source}; the same in plain Python")


def _of_memories(found: Found) -> list[Claim]:
    copied, judged = found.copies, found.grammars
    return [
        none(
            f"neural Turing machine, fewer words than slots and up to a quarter more: of {copied.bits:,} bits said, "
            f"how many are not those on the ring ({copied.overwritten:,} are not those shown)",
            copied.wrong,
            NTM14,
        ),
        none(
            "neural Turing machine: weights of the write head that are not 1 at the next slot and 0 elsewhere",
            copied.misplaced,
            NTM14,
        ),
        none(
            f"differentiable neural computer, 1 to {MOST} words 1 to {MOST} times: of {copied.repeated:,} bits and end "
            "marks, how many are wrong",
            copied.repeated_wrong,
            DNC16,
        ),
        none(
            f"stack network, brackets of two kinds: of {judged.told:,} symbols and ends, how many it allows or forbids "
            "wrongly after a prefix",
            judged.told_wrong,
            STACKS,
        ),
        none(
            f"pushdown automaton: of {judged.judged:,} prefixes, {judged.members:,} of them palindromes, how many it "
            "judges wrongly",
            judged.judged_wrong,
            NNPDA,
        ),
    ]


def _of_counters(counts: dict[str, list[float]], n: int) -> list[Claim]:
    words = "greatest error after any symbol of a^n b^n and of as many in random order, n ="
    found = []
    for name, (whole, half) in counts.items():
        found += [
            Claim.equal(f"{name}, float32: {words} {n:,}", whole, 0.0, WEISS),
            Claim.below(f"{name}, float64, steps of tau / 2: {words} {n // FEWER:,}", half, 1e-6, WEISS),
        ]
    return found


def _of_tapes(found: Tapes) -> list[Claim]:
    made = [
        Claim.equal(
            "busy beavers of 2, 3 and 4 states with their tape in numbers: steps to the halt, and ones then",
            found.halts,
            [[6, 4], [21, 5], [107, 13]],
            BEAVER,
        ),
        none("of these steps, how many left another tape, state or symbol than they should", found.numbers, NUMBERS),
    ]
    for dtype, limit in found.limits.items():
        name, digits = str(dtype)[6:], DIGITS[dtype]
        holds = (digits - 1) // 2
        made += [
            Claim.at_least(
                f"greatest beaver of 5 states in {name}: steps after which both numbers are exact, against those after "
                f"which neither half of the tape has had more than {holds} cells (state and symbol are right for "
                f"{limit.obeyed:,})",
                limit.exact,
                limit.fits,
                f"a cell takes two of {digits} binary digits, and sums on the way to it reach 2",
            ),
            Claim(
                f"the same: cells of the longer half where a number first is wrong, {name}",
                "exact",
                limit.cells,
                f"{holds + 1} or {holds + 2}",
                None,
                f"{digits} binary digits hold no more",
                holds < limit.cells <= holds + 2,
            ),
        ]
    steps, right = found.stacked
    text = "steps after which tape, state and symbol are right"
    made.append(
        Claim.equal(
            f"the same machine with its tape in stacks, up to {found.cells} cells a side: {text}", right, steps, STACKS
        )
    )
    return made


def _of_steps(gaps: dict[str, float]) -> list[Claim]:
    steps = ", ".join(f"tau / {parts}" for parts in PARTS)
    return [
        Claim.equal(
            f"{name} in steps of {steps}: greatest difference of what is held and said from steps of tau",
            gap,
            0.0,
            CLOCKED,
        )
        for name, gap in gaps.items()
    ]


# ---- figure


def figure(found: Found, generator: Generator) -> Figure:
    """A row for each: the neural Turing machine, the differentiable neural computer, stacks and counters, tapes."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.6), layout="constrained")
        rows = fig.subfigures(4, 1, hspace=0.03)
        titles = (
            "neural Turing machine: copies 6 words",
            "differentiable neural computer: says 3 words 4 times over",
            "stacks and counters",
            "Turing machine in saturated-linear units",
        )
        for row, title in zip(rows, titles, strict=True):
            row.suptitle(title, fontsize=8, weight="bold")
        _copier(rows[0].subplots(1, 4), generator)
        _repeater(rows[1].subplots(1, 4), generator)
        _stacks(rows[2].subplots(1, 4), generator)
        _tapes(rows[3].subplots(1, 4), found.tapes)
    return fig


def _copier(axes: Any, generator: Generator) -> None:
    us = copy_trials(torch.tensor([6]), generator)[0].us[:, 0]
    net = copier(8)
    traj = play(net, us)
    traces = analysis.head_traces(net, traj.xs)
    plots.vectors(axes[0], us, limit=1).set(title="input", ylabel="bits, delimiter")
    plots.vectors(axes[1], traj.ys, limit=1).set_title("output (log-odds)")
    for ax, weights_, title in zip(axes[2:], (traces.write, traces.read), ("write", "read"), strict=True):
        plots.weighting(ax, weights_[:, 0]).set_title(f"{title} weighting")
        ax.set_ylabel("slot")
    for ax in axes:
        ax.set_xlabel("time / $\\tau$")


def _repeater(axes: Any, generator: Generator) -> None:
    us = repeat_trials(torch.tensor([[3, 4]]), 4, generator)[0].us[:, 0]
    net = repeater(7, 4)
    traj = play(net, us)
    traces = analysis.head_traces(net, traj.xs)
    plots.vectors(axes[0], us, limit=1).set(title="input", ylabel="bits, start, n")
    plots.vectors(axes[1], traj.ys, limit=1).set_title("output (log-odds)")
    plots.heads(axes[2], traces.write[:, 0], traces.read[:, 0]).set(title="heads (read: A)", ylabel="slot")
    axes[2].legend(loc="lower center", ncols=2, handletextpad=0.1, borderpad=0)
    assert traces.link is not None
    plots.links(axes[3], traces.link[4, 0]).set(title="links after the input", xticks=[0, 2, 4, 6], yticks=[0, 2, 4, 6])
    for ax in axes[:3]:
        ax.set_xlabel("time / $\\tau$")


def _stacks(axes: Any, generator: Generator) -> None:
    words = bracket_words(40, 1, generator)
    net = bracketer(12)
    cells = analysis.stack_traces(net, play(net, one_hot(words, 4)[:, 0]).xs).contents[:, 0]
    plots.vectors(axes[0], cells[..., 0] - cells[..., 1], limit=1).set(
        title="stack: ( red, [ blue", ylabel="cell, top first"
    )
    words = letters(16, 1, generator)
    held = _segments(play(palindromer(18), one_hot(words, 3)[:, 0]).xs)
    plots.vectors(axes[1], held[..., 0] - held[..., 1], limit=1).set_title("automaton: a red, b blue")
    axes[1].set_ylabel("segment, top first")
    traj = integrate(lstm_counter(), Held(one_hot(counted_words(500, generator), 2).double(), 1.0), steps=Fixed(1.0))
    for k, (color, label) in enumerate(((TRAJECTORY, "a$^n$ b$^n$"), (UNSTABLE, "random order"))):
        axes[2].plot(count(traj.xs)[:, k], color=color, label=label)
    axes[2].set(title="LSTM cell, n = 500", ylabel="count", xlabel="symbol", ylim=(-80, 850))
    axes[2].legend(loc="upper right", handlelength=1)
    word = torch.tensor([[0] * 10 + [1] * 20 + [0] * 10])
    xs: Any = integrate(relu_counter(), Held(one_hot(word, 2)[:, 0].double(), 1.0), steps=Fixed(0.5)).xs
    axes[3].plot(xs[:, 0], color=INPUT, label="$x_1$")
    axes[3].plot(xs[:, 1], color=OUTPUT, label="$x_2$")
    axes[3].plot(count(xs), color=TRAJECTORY, ls="--", label="$x_1 - x_2$")
    axes[3].set(title="ReLU pair, dt = $\\tau$ / 2", xlabel="symbol of a$^{10}$ b$^{20}$ a$^{10}$", ylim=(-11, 18))
    axes[3].legend(loc="upper right", ncols=3, handlelength=1, columnspacing=0.6)
    for ax in axes[:2]:
        ax.set_xlabel("time / $\\tau$")


def _segments(xs: Any) -> Tensor:
    """(time, segment, letter), the newest segment first."""
    order = newest_first(xs.place)
    return xs.contents.gather(-2, order[..., None].expand_as(xs.contents))


def _tapes(axes: Any, found: Tapes) -> None:
    machine = table(BEAVERS[4])
    ys = integrate(in_numbers(machine), start(found.halts[-1][0]), dt=1.0).ys
    tape, at = _tape(machine, ys)
    plots.weighting(axes[0], tape, cmap="gray_r").set(title="tape of 4 states", ylabel="cell (1 black), head")
    axes[0].plot(np.arange(len(at)) + 0.5, at, color=UNSTABLE, lw=0.8)
    for half, color, name in ((0, TRAJECTORY, "left"), (1, UNSTABLE, "right")):
        axes[1].plot(range(1, len(ys) + 1), ys[:, half], ".", ms=2, color=color, label=name)
    axes[1].set(title="its halves as numbers", ylim=(-0.03, 1.25), yticks=[0, 0.25, 0.5, 0.75, 1])
    axes[1].legend(loc="upper right", ncols=2, handletextpad=0.1, columnspacing=0.5)
    places = simulated(table(BEAVERS[5]), SHOWN)
    _where_bits_end(axes[2], places, found)
    _errors(axes[3], places)
    for ax in axes:
        ax.set_xlabel("step")


SHOWN = 400  # steps of the greatest beaver


def _where_bits_end(ax: Axes, places: Sequence[Place], found: Tapes) -> None:
    cells = [max(len(place.left), len(place.right)) for place in places]
    ax.plot(range(1, len(cells) + 1), cells, color=QUIET)
    for (dtype, limit), color in zip(found.limits.items(), (INPUT, OUTPUT), strict=True):
        holds = (DIGITS[dtype] - 1) // 2
        ax.axhline(holds + 0.5, color=color, lw=0.7, ls="--")
        ax.plot(limit.exact + 1, limit.cells, "o", ms=4, color=color)
        x, y, side = (0.03, holds + 1.5, "left") if dtype == torch.float64 else (0.97, holds - 4.5, "right")
        ax.text(x * len(cells), y, f"{str(dtype)[6:]}: {holds}", color=color, ha=side, fontsize=7)
    ax.set(title="5 states: longer half", ylabel="cells", xlim=(0, len(cells)), ylim=(0, None))


def _errors(ax: Axes, places: Sequence[Place]) -> None:
    machine = table(BEAVERS[5])
    for dtype, color in zip(DIGITS, (INPUT, OUTPUT), strict=True):
        numbers, _, _ = followed(machine, places, dtype)
        errors = [
            max(float(abs(Fraction(q) - fraction(cells))) for q, cells in zip(row, (at.left, at.right), strict=True))
            for row, at in zip(numbers.tolist(), places, strict=True)
        ]
        ax.semilogy(range(1, len(errors) + 1), np.where(np.array(errors) > 0, errors, np.nan), ".", ms=2, color=color)
        ax.plot([], [], "o", ms=3, color=color, label=str(dtype)[6:])
    ax.set(title="5 states: error", xlim=(0, len(places)), ylim=(1e-18, 30))
    ax.legend(loc="lower left", handletextpad=0.1)


def _tape(machine: Table, ys: Tensor) -> tuple[Tensor, list[int]]:
    """The tape (step, cell) as the numbers and the symbol tell it, and where the head is; cell 0 is the leftmost."""
    states = [*sorted({i for i, _ in machine}), "Z"]
    code = ys[:, 2:].argmax(-1).tolist()
    done = [("A", 0), *[(states[k // 2], k % 2) for k in code[:-1]]]
    at = np.cumsum([1 if machine[instruction][1] == "R" else -1 for instruction in done])
    rows: list[dict[int, int]] = []
    for place, symbol, numbers in zip(at.tolist(), (k % 2 for k in code), ys[:, :2].tolist(), strict=True):
        left, right = map(cells_of, numbers)
        beside = {place - 1 - k: cell for k, cell in enumerate(left)} | {place + 1 + k: c for k, c in enumerate(right)}
        rows.append(beside | {place: symbol})
    low, high = min(map(min, rows)), max(map(max, rows))
    tape = torch.tensor([[row.get(k, 0) for k in range(low, high + 1)] for row in rows])
    return tape, (at - low).tolist()


if __name__ == "__main__":
    main(run)
