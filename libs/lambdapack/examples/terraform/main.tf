# uvx lambdapack build hello --python 3.13 && terraform -chdir=terraform apply
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

locals {
  artifact = "${path.module}/../dist/hello.zip"
}

resource "aws_lambda_function" "hello" {
  function_name    = "hello"
  filename         = local.artifact
  source_code_hash = filebase64sha256(local.artifact)
  handler          = "hello.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  role             = aws_iam_role.hello.arn
}

resource "aws_iam_role" "hello" {
  name = "hello"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "hello" {
  role = aws_iam_role.hello.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "arn:aws:s3:::my-bucket/*"
    }]
  })
}
