'use strict';

const UserError = require('./user-error');

// The framework's stage of each API, and the resource that the API's mapping depends on.
const APIS = {
  http: { id: 'Http', api: 'HttpApi', stage: '$default', after: 'HttpApiStage' },
  socket: {
    id: 'Socket', api: 'WebsocketsApi', stage: '${sls:stage}', after: 'WebsocketsDeploymentStage',
  },
};

/**
 * Custom domain names of the APIs, and the targets for their DNS records.
 *
 * @param given `httpDomain` and `httpCertificate`, `socketDomain` and `socketCertificate`; empty
 *   for an API with API Gateway's own name.
 */
module.exports = (given) => {
  const template = { Resources: {}, Outputs: {} };
  if (given.httpDomain && given.httpDomain === given.socketDomain) {
    throw new UserError(
      `httpDomain and socketDomain are both '${given.httpDomain}': API Gateway allows no domain ` +
        'name for a WebSocket API and an HTTP API together; use two names'
    );
  }
  for (const [kind, { id, api, stage, after }] of Object.entries(APIS)) {
    const { [`${kind}Domain`]: domain, [`${kind}Certificate`]: certificate } = given;
    if (!domain && !certificate) continue;
    if (!domain || !certificate) {
      throw new UserError(
        `${kind}Domain and ${kind}Certificate go together: set both, or neither`
      );
    }
    template.Resources[`${id}Domain`] = {
      Type: 'AWS::ApiGatewayV2::DomainName',
      Properties: {
        DomainName: domain,
        DomainNameConfigurations: [
          { CertificateArn: certificate, EndpointType: 'REGIONAL', SecurityPolicy: 'TLS_1_2' },
        ],
      },
    };
    template.Resources[`${id}DomainMapping`] = {
      Type: 'AWS::ApiGatewayV2::ApiMapping',
      DependsOn: after,
      Properties: { ApiId: { Ref: api }, DomainName: { Ref: `${id}Domain` }, Stage: stage },
    };
    const target = (attribute) => ({ Value: { 'Fn::GetAtt': [`${id}Domain`, attribute] } });
    template.Outputs[`${id}DomainTarget`] = target('RegionalDomainName');
    template.Outputs[`${id}DomainZone`] = target('RegionalHostedZoneId');
  }
  return template;
};
