// Starts Swagger UI on the document that lies beside the page. A validator elsewhere is not asked.
globalThis.SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#page',
  deepLinking: true,
  validatorUrl: null,
})
