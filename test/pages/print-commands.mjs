// Preloaded into one of our command lines: instead of running it prints what commands there are.
import { Command } from 'commander';

function textAfter(command) {
  let whole = '';
  command.configureOutput({ writeOut: (text) => (whole += text) }).outputHelp();
  return whole.slice(command.helpInformation().length).trim();
}

const describeOption = ({ flags, long, mandatory, description, defaultValue }) => ({
  flags,
  long,
  mandatory,
  description,
  default:
    defaultValue === undefined || typeof defaultValue === 'boolean' || defaultValue === '' || Array.isArray(defaultValue) ? undefined : String(defaultValue),
});

function describe(command) {
  return {
    name: command.name(),
    description: command.description(),
    version: command.version(),
    usage: command.usage(),
    after: textAfter(command),
    arguments: command.registeredArguments.map((argument) => ({ name: argument.name(), description: argument.description })),
    options: command.options.map(describeOption),
    commands: command.commands.map(describe),
  };
}

Command.prototype.parseAsync = function () {
  process.stdout.write(JSON.stringify(describe(this)));
  process.exit(0);
};
