'use strict';

const UserError = require('./user-error');

// AWS's limits of names, by resource type and property.
const LIMITS = {
  'AWS::ApiGatewayV2::Api': ['Name', 128],
  'AWS::CloudWatch::Alarm': ['AlarmName', 255],
  'AWS::CloudWatch::Dashboard': ['DashboardName', 255],
  'AWS::DynamoDB::Table': ['TableName', 255],
  'AWS::Events::Rule': ['Name', 64],
  'AWS::IAM::Role': ['RoleName', 64],
  'AWS::Lambda::Function': ['FunctionName', 64],
  'AWS::Logs::LogGroup': ['LogGroupName', 512],
  'AWS::S3::Bucket': ['BucketName', 63],
  'AWS::SNS::Topic': ['TopicName', 256],
  'AWS::SQS::Queue': ['QueueName', 80],
  'AWS::StepFunctions::StateMachine': ['StateMachineName', 80],
};
const ACCOUNT = '123456789012'; // Every account id has twelve digits.

exports.LIMITS = LIMITS;

/**
 * A value of literals and of the given pseudo parameters as text; undefined if it holds anything
 * else.
 */
exports.literal = (value, pseudo) => {
  if (typeof value === 'string') return value;
  if (value?.Ref) return pseudo[value.Ref];
  if (!value?.['Fn::Join']) return undefined;
  const [separator, parts] = value['Fn::Join'];
  const texts = parts.map((part) => exports.literal(part, pseudo));
  return texts.includes(undefined) ? undefined : texts.join(separator);
};

/** Refuse a template with a name that AWS would refuse, before anything is created. */
exports.checkNames = ({ Resources: resources }, { service, stage, region }) => {
  const pseudo = { 'AWS::AccountId': ACCOUNT, 'AWS::Region': region };
  const tooLong = Object.values(resources)
    .map(({ Type: type, Properties: properties = {} }) => {
      const [property, limit] = LIMITS[type] || [];
      const name = exports.literal(properties[property], pseudo) || '';
      return { type, name, limit, over: name.length - limit };
    })
    .filter(({ over }) => over > 0)
    .sort((one, other) => other.over - one.over);
  if (tooLong.length === 0) return;
  const [{ type, name, limit, over }] = tooLong;
  const most = stage.length - over;
  const remedy =
    most > 0
      ? `use a stage name of at most ${most} characters`
      : `shorten the service '${service}' in serverless.yml by ${over} characters`;
  throw new UserError(
    `the name '${name}' (${type}) has ${name.length} characters, and AWS allows ${limit}: ` +
      `${remedy}, or deploy to a region with a shorter name`
  );
};
