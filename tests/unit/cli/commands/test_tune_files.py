"""What `dlbench tune` writes never takes the place of what a person wrote."""

from typer.testing import CliRunner

from dlbench.cli.main import app


def test_the_recommendation_does_not_overwrite_the_file_it_was_configured_by(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("seed = 1\n")
    study = tmp_path / "mine.db"
    done = CliRunner().invoke(
        app, ["tune", "demo:mlp", "--config", str(mine), "--study", str(study)]
    )
    assert done.exit_code != 0
    assert "--recommended" in str(done.exception)
    assert mine.read_text() == "seed = 1\n"
