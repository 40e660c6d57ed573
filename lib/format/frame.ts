export interface Frame { placeholder: never }
