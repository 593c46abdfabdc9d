{{- define "kafka-dedup.fullname" -}}
{{- /* 52 characters, as a StatefulSet's revision puts eleven more behind it in a label of 63. */ -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Never changed: Kubernetes refuses another selector in an upgrade. */ -}}
{{- define "kafka-dedup.selectorLabels" -}}
app.kubernetes.io/name: kafka-dedup
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* By this the budget, the network policy and the PodMonitor know a pod, be it the chart's or another's with a sidecar. */ -}}
{{- define "kafka-dedup.memberLabels" -}}
kafka-dedup/member: {{ include "kafka-dedup.fullname" . }}
{{- end -}}

{{- define "kafka-dedup.labels" -}}
{{ include "kafka-dedup.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kafka-dedup.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kafka-dedup.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kafka-dedup.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "kafka-dedup.config" -}}
{{ toYaml .Values.config }}
{{- end -}}

{{- /* With a hash of the content, so that a container that starts anew in an old pod never has the config of the new ones. */ -}}
{{- define "kafka-dedup.configName" -}}
{{ include "kafka-dedup.fullname" . }}-{{ include "kafka-dedup.config" . | sha256sum | trunc 10 }}
{{- end -}}

{{- /* A pod with this annotation is replaced when the config is. */ -}}
{{- define "kafka-dedup.annotations" -}}
checksum/config: {{ include "kafka-dedup.config" . | sha256sum }}
{{- end -}}

{{- /* What the Pod Security Standard "restricted" asks for; at the container, as a sidecar has neighbours. */ -}}
{{- define "kafka-dedup.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The same for the check of the config and for the service. */ -}}
{{- define "kafka-dedup.environment" -}}
env:
  # Part of transactional.id, so it has to be one that no other process has: the pod's name.
  - name: KAFKA_DEDUP__KAFKA__INSTANCE_ID
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- include "kafka-dedup.securityContext" . | nindent 2 }}
volumeMounts:
  - {name: kafka-dedup-config, mountPath: /etc/kafka-dedup, readOnly: true}
  # store.path: the one place that is written.
  - {name: kafka-dedup-store, mountPath: /var/lib/kafka-dedup}
  {{- range $number, $secret := .Values.secrets }}
  - {name: kafka-dedup-secret-{{ $number }}, mountPath: {{ $secret.mountPath | quote }}, readOnly: true}
  {{- end }}
  {{- range $number, $map := .Values.configMaps }}
  - {name: kafka-dedup-configmap-{{ $number }}, mountPath: {{ $map.mountPath | quote }}, readOnly: true}
  {{- end }}
{{- end -}}

{{- /* The init container that ends a rollout with a wrong config, as an item of a list; nothing where it is not wanted. */ -}}
{{- define "kafka-dedup.check" -}}
{{- if .Values.checkConfig -}}
- name: kafka-dedup-check
  image: {{ include "kafka-dedup.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [check, -c, /etc/kafka-dedup/kafka-dedup.yaml, --offline]
  resources:
    requests: {memory: 32Mi, cpu: 10m}
    limits: {memory: 128Mi}
  {{- include "kafka-dedup.environment" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "kafka-dedup.container" -}}
name: kafka-dedup
image: {{ include "kafka-dedup.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, -c, /etc/kafka-dedup/kafka-dedup.yaml]
{{ include "kafka-dedup.environment" . }}
ports:
  # Probes and metrics. The admin port is on the loopback address; `kubectl port-forward` reaches it there.
  - {name: http, containerPort: 9464, protocol: TCP}
# The listener is there before Kafka is asked.
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 2
  failureThreshold: {{ .Values.probes.startupFailures }}
# Asks the process alone, never Kafka: a restart would not bring brokers back.
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  failureThreshold: {{ .Values.probes.livenessFailures }}
{{- if or .Values.probes.readiness (ne .Values.kind "Sidecar") }}
# Not ready while partitions are restored or Kafka is away: a rollout waits for that.
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The volumes of the two containers. Those of a StatefulSet's store are claims. */ -}}
{{- define "kafka-dedup.volumes" -}}
- name: kafka-dedup-config
  configMap: {name: {{ include "kafka-dedup.configName" . }}}
{{- range $number, $secret := .Values.secrets }}
- name: kafka-dedup-secret-{{ $number }}
  secret:
    secretName: {{ $secret.name }}
    # For owner and group alone, which fsGroup makes the service's.
    defaultMode: 0440
{{- end }}
{{- range $number, $map := .Values.configMaps }}
- name: kafka-dedup-configmap-{{ $number }}
  configMap: {name: {{ $map.name }}}
{{- end }}
{{- if ne .Values.kind "StatefulSet" }}
- name: kafka-dedup-store
  # A cache of the journal, which may be lost: it goes with the pod.
  emptyDir: {sizeLimit: {{ .Values.store.size }}}
{{- end }}
{{- end -}}

{{- /*
For other charts, under initContainers: the check of the config and the service as a native sidecar. The argument is this
chart's scope: {{ include "kafka-dedup.sidecar" (index .Subcharts "kafka-dedup") | nindent 8 }}. docs/deploy.md has the rest.
*/ -}}
{{- define "kafka-dedup.sidecar" -}}
{{- if ne .Values.kind "Sidecar" -}}
{{- fail (printf "kafka-dedup.sidecar is included, and kind is %s: set kafka-dedup.kind to Sidecar, or there are two members where one is wanted" .Values.kind) -}}
{{- end -}}
{{ include "kafka-dedup.check" . }}
- restartPolicy: Always
  {{- include "kafka-dedup.container" . | nindent 2 }}
{{- end -}}

{{- /* The whole pod template of Deployment and StatefulSet. */ -}}
{{- define "kafka-dedup.pod" -}}
metadata:
  annotations:
    {{- include "kafka-dedup.annotations" . | nindent 4 }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "kafka-dedup.selectorLabels" . | nindent 4 }}
    {{- include "kafka-dedup.memberLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  serviceAccountName: {{ include "kafka-dedup.serviceAccountName" . }}
  # It asks the API for nothing, so it gets no token.
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    # The group that may write the volume and read Secrets.
    fsGroup: 65532
    # A volume that is right already is not walked through at each start.
    fsGroupChangePolicy: OnRootMismatch
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if .Values.topologySpreadConstraints }}
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    # A preference, so that one node is enough.
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "kafka-dedup.memberLabels" $ | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- if .Values.checkConfig }}
  initContainers:
    {{- include "kafka-dedup.check" . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "kafka-dedup.container" . | nindent 6 | trim }}
  volumes:
    {{- include "kafka-dedup.volumes" . | nindent 4 }}
{{- end -}}
