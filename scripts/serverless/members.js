'use strict';

const fs = require('node:fs');
const path = require('node:path');
const yaml = require('js-yaml');

const ROOT = path.resolve(__dirname, '..', '..');

const read = (file) => yaml.load(fs.readFileSync(file, 'utf8')) || {};

const entries = (folder) =>
  fs.existsSync(path.join(ROOT, folder)) ? fs.readdirSync(path.join(ROOT, folder)).sort() : [];

/** Folder name → function.yml, for every function whose module exists. */
exports.members = () => {
  const found = {};
  for (const name of entries('functions')) {
    const folder = path.join(ROOT, 'functions', name);
    const config = path.join(folder, 'function.yml');
    const module = path.join(folder, `${exports.moduleOf(name)}.py`);
    if (fs.existsSync(config) && fs.existsSync(module)) found[name] = read(config);
  }
  return found;
};

/** The names of the members that depend on a lib without its extra. */
exports.membersWithout = (lib, extra) => {
  const depends = new RegExp(`^ +"${lib}(?!\\[${extra}\\])[^"]*",?$`, 'm');
  return entries('functions')
    .map((name) => path.join(ROOT, 'functions', name, 'pyproject.toml'))
    .map((file) => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''))
    .filter((text) => depends.test(text))
    .map((text) => /^name = "(.*)"$/m.exec(text)[1]);
};

/** The parsed resources/*.yml, in order; without definitions of state machines (*.asl.yml). */
exports.fragments = () =>
  entries('resources')
    .filter((name) => name.endsWith('.yml') && !name.endsWith('.asl.yml'))
    .map((name) => read(path.join(ROOT, 'resources', name)));

/** The source of the functions and libs, as one text. */
exports.sources = () =>
  ['functions', 'libs']
    .flatMap((folder) =>
      fs.readdirSync(path.join(ROOT, folder), { recursive: true }).map((file) => path.join(ROOT, folder, file))
    )
    .filter((file) => file.endsWith('.py'))
    .map((file) => fs.readFileSync(file, 'utf8'))
    .join('');

/** Whether a function is triggered by events of a kind: stream, sqs, schedule, httpApi, websocket. */
exports.hasTrigger = ({ events = [] }, kind) => events.some((event) => event[kind]);

exports.moduleOf = (name) => name.replaceAll('-', '_');

/** `check-active-job` → `CheckActiveJob` */
exports.logicalName = (name) =>
  name.split(/[^A-Za-z0-9]+/).map((word) => word[0].toUpperCase() + word.slice(1)).join('');

/** The framework's name of a function in logical ids: `send-interrupt` → `SendDashinterrupt`. */
exports.normalized = (name) => {
  const words = name.replaceAll('-', 'Dash');
  return words[0].toUpperCase() + words.slice(1);
};

exports.roleOf = (name) => `${exports.logicalName(name)}Role`;

/** The full name of a function, alarm or topic, which begins with the service's name. */
exports.deployedName = (name) => `${exports.STACK}-${name}`;

exports.STACK = '${self:service}-${sls:stage}';

exports.METRICS = '${param:metricsNamespace}';
