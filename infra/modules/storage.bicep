// Two accounts: the host's, which needs broad permissions, and one for dead letters, which contain documents.
param location string

@minLength(3)
@maxLength(24)
param hostName string

@minLength(3)
@maxLength(24)
param deadLetterName string

param tags object
param capturePrincipalId string
param operatorPrincipalId string
param operatorPrincipalType string

// Built-in roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var blobDataOwner = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
)
var blobDataContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
)
var tableDataContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
)

resource host 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: hostName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource hostBlobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: host
  name: 'default'
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: hostBlobs
  name: 'packages'
}

resource dead 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: deadLetterName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource deadBlobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: dead
  name: 'default'
  // No soft delete or versioning: a letter that `erase` removes must be gone.
  properties: {
    deleteRetentionPolicy: { enabled: false }
    isVersioningEnabled: false
  }
}

resource deadLetters 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: deadBlobs
  name: 'dead-letters'
}

// The Functions host creates containers of its own (locks, secrets) and reads its package.
resource hostOwner 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: host
  name: guid(host.id, capturePrincipalId, blobDataOwner)
  properties: {
    principalId: capturePrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: blobDataOwner
  }
}

// The host writes diagnostic events to a table.
resource hostTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: host
  name: guid(host.id, capturePrincipalId, tableDataContributor)
  properties: {
    principalId: capturePrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: tableDataContributor
  }
}

resource letterWriter 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: deadLetters
  name: guid(deadLetters.id, capturePrincipalId, blobDataContributor)
  properties: {
    principalId: capturePrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: blobDataContributor
  }
}

resource letterOperator 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(operatorPrincipalId)) {
  scope: deadLetters
  name: guid(deadLetters.id, operatorPrincipalId, blobDataContributor)
  properties: {
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
    roleDefinitionId: blobDataContributor
  }
}

output hostName string = host.name
output packageContainerUrl string = '${host.properties.primaryEndpoints.blob}${packages.name}'
output deadLetterContainerUrl string = '${dead.properties.primaryEndpoints.blob}${deadLetters.name}'
