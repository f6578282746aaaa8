"""Values of options are taken without pydantic, and mean and fail as typer has them."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from flowstone.cli.plain_values import take_plain_values


class Colour(StrEnum):
    RED = "red"


def _program(*, plain: bool) -> Any:
    program = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @program.command()
    def show(
        name: Annotated[str, typer.Argument()] = "nobody",
        more: Annotated[list[str] | None, typer.Argument()] = None,
        *,
        text: Annotated[str | None, typer.Option()] = None,
        several: Annotated[list[str] | None, typer.Option()] = None,
        number: Annotated[int, typer.Option(min=-5, max=10)] = 1,
        seconds: Annotated[float | None, typer.Option(min=0.0)] = None,
        flag: Annotated[bool, typer.Option("--flag/--no-flag")] = False,
        colour: Annotated[Colour | None, typer.Option()] = None,
        parsed: Annotated[str | None, typer.Option(parser=str.upper)] = None,
        ports: Annotated[list[int] | None, typer.Option()] = None,
    ) -> None:
        values = (name, more, text, several, number, seconds, flag, colour, parsed, ports)
        print([(type(value).__name__, value) for value in values])

    made = typer.main.get_command(program)
    if plain:
        for parameter in made.params:
            take_plain_values(parameter)
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b", "c"],
        ["", "--text", "", "--several", "x", "--several", "y"],
        ["--number", "007", "--seconds", "1", "--flag"],
        ["--number", "-5", "--seconds", "0.25", "--no-flag", "--colour", "red", "--parsed", "abc"],
        ["--number", "11"],
        ["--number", "-6"],
        ["--number", "1_0"],
        ["--number", " 7 "],
        ["--number", "1.0"],
        ["--number", "٣"],
        ["--number", "many"],
        ["--number", "9" * 30],
        ["--seconds", "-0.5"],
        ["--seconds", "1e3"],
        ["--seconds", "inf"],
        ["--seconds", "nan"],
        ["--seconds", ".5"],
        ["--seconds", "soon"],
        ["--colour", "blue"],
        ["--ports", "1", "--ports", "2"],
        ["--ports", "x"],
        ["--text"],
        ["--nothing"],
    ],
    ids=" ".join,
)
def test_values_and_errors_are_those_of_typer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for plain in (True, False):
        with pytest.raises(SystemExit) as ended:
            _program(plain=plain).main(args=arguments, prog_name="show")
        found.append((ended.value.code, *capsys.readouterr()))

    assert found[0] == found[1]
    assert found[0][1] or found[0][2]


@pytest.mark.parametrize("arguments", [["ls"], ["runs", "ls", "--limit", "3"], ["materialize", "one"], ["queues"]])
def test_a_command_does_not_import_pydantic(arguments: list[str], tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text("from flowstone import FlowStone, asset\nflow = FlowStone([asset(name='one')(lambda: 1)])\n")
    code = (
        "import sys\n"
        "from flowstone.cli import main\n"
        f"sys.argv = ['flowstone', *{arguments!r}, '--app', {str(app)!r} + ':flow']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ended:\n"
        "    print(ended.code, 'pydantic' in sys.modules, 'typer' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stdout.splitlines()[-1].split()[1:] == ["False", "True"], done.stderr
