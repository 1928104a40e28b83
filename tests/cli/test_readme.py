"""What the README tells a newcomer to type works as it is written."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_eight_lines_of_boto3_work(endpoint, capsys):
    text = README.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    names = {}
    exec(code.replace("http://127.0.0.1:8000", endpoint), names)
    assert "Nina Simone" in capsys.readouterr().out
    names["table"].delete()
    names["db"].meta.client.close()
