'use strict';

const { emulatorUrl } = require('./emulator');

const REFUSED = new Set(['AWS::ApiGatewayV2::Deployment', 'AWS::ApiGatewayV2::RouteResponse']);

/**
 * MiniStack's CloudFormation has no deployments and no route responses: on a loopback endpoint
 * they are left out, and stages deploy automatically. On AWS this plugin does nothing.
 */
module.exports = class LocalStage {
  constructor(serverless) {
    if (emulatorUrl()) {
      this.hooks = {
        'before:package:finalize': () => adapt(serverless.service.provider),
      };
    }
  }
};

const adapt = ({ compiledCloudFormationTemplate: { Resources: resources } }) => {
  const dropped = new Set(Object.keys(resources).filter((id) => REFUSED.has(resources[id].Type)));
  for (const id of dropped) delete resources[id];
  for (const resource of Object.values(resources)) {
    if (resource.DependsOn) {
      resource.DependsOn = [resource.DependsOn].flat().filter((id) => !dropped.has(id));
    }
    if (resource.Type === 'AWS::ApiGatewayV2::Stage') {
      delete resource.Properties.DeploymentId;
      resource.Properties.AutoDeploy = true;
    }
  }
};
