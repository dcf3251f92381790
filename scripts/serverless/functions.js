'use strict';

const { deployedName, members, moduleOf, normalized, roleOf } = require('./members');

// Replaces every artifact if only the template is needed.
const { JOBPLANE_STAND_IN: STAND_IN } = process.env;

const here = new Set(Object.keys(members()).map((name) => `${normalized(name)}LambdaFunction`));

/** functions/<name>/function.yml → the framework's `functions`. */
module.exports = Object.fromEntries(
  Object.entries(members()).map(([name, { iamRoleStatements: _, alarms: __, ...config }]) => [
    name,
    {
      ...config,
      // A project may have only one of two functions.
      ...(config.dependsOn && { dependsOn: config.dependsOn.filter((id) => here.has(id)) }),
      name: deployedName(name),
      handler: `${moduleOf(name)}.handler`,
      role: roleOf(name),
      package: { artifact: STAND_IN || `dist/${name}.zip` },
    },
  ])
);
