'use strict';

const { deployedName, members, moduleOf, roleOf } = require('./members');

// Replaces every artifact if only the template is needed.
const { JOBPLANE_STAND_IN: STAND_IN } = process.env;

/** functions/<name>/function.yml → the framework's `functions`. */
module.exports = Object.fromEntries(
  Object.entries(members()).map(([name, { iamRoleStatements: _, alarms: __, ...config }]) => [
    name,
    {
      ...config,
      name: deployedName(name),
      handler: `${moduleOf(name)}.handler`,
      role: roleOf(name),
      package: { artifact: STAND_IN || `dist/${name}.zip` },
    },
  ])
);
