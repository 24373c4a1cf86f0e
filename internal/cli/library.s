// This empty file lets library.go declare a function without a body.
