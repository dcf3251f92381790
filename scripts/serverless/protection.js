'use strict';

const {
  DescribeTableCommand,
  DynamoDBClient,
  UpdateTableCommand,
} = require('@aws-sdk/client-dynamodb');

const TABLE = 'AWS::DynamoDB::Table';
const MARK = 'ProtectedOnceDeployed';

const tables = ({ Resources: resources }) =>
  Object.values(resources).filter(({ Type: type }) => type === TABLE);

/**
 * A table that is created with protection can't be deleted if the rest of the deployment fails, and
 * then blocks the next deployment. So the template only marks it.
 */
exports.defer = (template) => {
  for (const table of tables(template)) {
    const { DeletionProtectionEnabled: wanted } = table.Properties;
    if (wanted === undefined) continue;
    delete table.Properties.DeletionProtectionEnabled;
    if (String(wanted) === 'true') table.Metadata = { ...table.Metadata, [MARK]: true };
  }
};

/** Protect the marked tables after the stack is deployed. */
exports.protect = async (template, config) => {
  const names = tables(template)
    .filter(({ Metadata: metadata }) => metadata?.[MARK])
    .map(({ Properties: { TableName: name } }) => name);
  if (names.length === 0) return;
  const client = new DynamoDBClient(config);
  await Promise.all(names.map((name) => protectTable(client, name)));
};

const protectTable = async (client, name) => {
  const { Table: table } = await client.send(new DescribeTableCommand({ TableName: name }));
  if (table.DeletionProtectionEnabled) return;
  await client.send(new UpdateTableCommand({ TableName: name, DeletionProtectionEnabled: true }));
};
