'use strict';

const { deployedName, members, moduleOf, roleOf } = require('./members');

/** functions/<name>/function.yml → the framework's `functions`. */
module.exports = Object.fromEntries(
  Object.entries(members()).map(([name, { iamRoleStatements: _, alarms: __, ...config }]) => [
    name,
    {
      ...config,
      name: deployedName(name),
      handler: `${moduleOf(name)}.handler`,
      role: roleOf(name),
      package: { artifact: `dist/${name}.zip` },
    },
  ])
);
