"""Runs a command on a terminal of its own and answers its prompts.

terminal.py '{"command": [...], "answers": [["end of a prompt, as a regular expression", "answer"], ...]}'
Prints what the terminal showed and ends with the command's status. A prompt that never comes, or one too many, ends in 124 after a minute.
"""
import json, os, pty, re, select, signal, sys

given = json.loads(sys.argv[1])
answers = [(re.compile(prompt + r'\s*$'), answer) for prompt, answer in given['answers']]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(given['command'][0], given['command'])

signal.signal(signal.SIGALRM, lambda *_: (os.kill(pid, signal.SIGKILL), os._exit(124)))
signal.alarm(60)
shown, pending = '', ''
while True:
    try:
        data = os.read(terminal, 65536)
    except OSError:  # EIO: the last who had the terminal open has gone
        break
    if not data:
        break
    text = data.decode(errors='replace')
    shown += text
    pending = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', pending + text)
    if answers and answers[0][0].search(pending):
        os.write(terminal, answers.pop(0)[1].encode() + b'\n')
        pending = ''
_, status = os.waitpid(pid, 0)
sys.stdout.write(shown)
sys.exit(os.waitstatus_to_exitcode(status) if not answers else 125)
